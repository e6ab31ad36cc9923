"""Differences between the tables that the migrations make and the tables that the code uses."""

from __future__ import annotations

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from patching.ledger.schema import VERSION_TABLE, metadata
from patching.ledger.store import SqlLedger


def differences(ledger: SqlLedger) -> list[Any]:
    with ledger._database.dialect.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        )
        return list(compare_metadata(context, metadata))
