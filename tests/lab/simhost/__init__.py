"""Simulated hosts: SSH servers that run commands of this user in a folder a host, with stand-ins for apt and friends.

Nothing here proves that patching works on Debian. It lets people without root or user namespaces walk through a demo.
"""
