"""Canary analysis: arrays and counts in, a verdict with its reasons out."""
