"""SQL behind the ledger's back, as somebody with the right to change the database would run it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from patching.ledger.store import SqlLedger

_SQLITE = "SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'"
_POSTGRES = (
    "SELECT tgname AS name, relname AS tbl_name FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
    "WHERE NOT tgisinternal"
)


def run_raw(ledger: SqlLedger, statement: str, *, guarded: bool = False, **values: Any) -> None:
    """Run a statement; unless ``guarded``, the triggers that keep tables append-only are dropped first."""
    engine = ledger._database.dialect.engine
    sqlite = engine.dialect.name == "sqlite"
    with engine.begin() as connection:
        if not guarded:
            for name, table in connection.execute(sa.text(_SQLITE if sqlite else _POSTGRES)).all():
                connection.execute(sa.text(f"DROP TRIGGER {name}" + ("" if sqlite else f" ON {table}")))
        connection.execute(sa.text(statement), values)


def read_raw(ledger: SqlLedger, query: sa.Select[Any]) -> list[dict[str, Any]]:
    with ledger._database.dialect.engine.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]
