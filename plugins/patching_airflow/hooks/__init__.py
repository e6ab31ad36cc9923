"""Hooks: what tasks talk to outside of a rollout."""
