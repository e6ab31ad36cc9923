"""The command line `patching`."""
