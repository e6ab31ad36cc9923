"""The append-only record, its hash chain, and the state projected from it."""
