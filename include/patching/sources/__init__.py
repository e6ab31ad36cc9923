"""Sources: inventories, advisories, metrics and connections that are read."""
