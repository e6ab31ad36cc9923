"""The ledger's own suite: what must hold on SQLite and on PostgreSQL alike, and the server that the tests start."""
