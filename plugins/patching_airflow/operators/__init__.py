"""Operators: one thin task for each part of a rollout."""
