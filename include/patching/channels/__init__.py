"""Channels: the only I/O that touches a target."""
