"""Alembic's entry: runs inside the connection and transaction that ``patching.ledger.migrate`` holds."""

from __future__ import annotations

from alembic import context

from patching.ledger.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()
