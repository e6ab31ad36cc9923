"""One file per change of the tables: expand first, contract in a later release."""
