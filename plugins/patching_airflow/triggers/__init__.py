"""Triggers: what a deferred task waits for, in the triggerer."""
