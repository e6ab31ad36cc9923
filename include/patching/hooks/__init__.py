"""Hooks: what is done around the change of a target."""
