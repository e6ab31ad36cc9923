"""Real servers that tests start for themselves on loopback, with a folder of their own, and leave no trace of."""
