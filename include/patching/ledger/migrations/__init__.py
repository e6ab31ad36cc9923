"""Alembic migrations of the ledger; ``patching.ledger.migrate`` runs them."""
