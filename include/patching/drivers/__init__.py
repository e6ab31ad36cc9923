"""Drivers: one technology a file, pure."""
