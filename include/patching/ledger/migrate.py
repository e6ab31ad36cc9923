"""Opening the tables: a quick look at the version, and Alembic only where there is something to migrate."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from patching.errors import LedgerError, LedgerUnavailable
from patching.ledger import schema

_LOCK = 7_140_516_302_991  # arbitrary, only for migrations of this ledger
_VERSION = sa.table(schema.VERSION_TABLE, sa.column("version_num", sa.Text))


def ready_id(connection: sa.Connection) -> str | None:
    """Give the ledger's id if its tables are of this release, None if they must be migrated first.

    Raises LedgerError where a newer release has migrated them.
    """
    if not sa.inspect(connection).has_table(schema.VERSION_TABLE):
        return None
    version = connection.execute(sa.select(_VERSION.c.version_num)).scalar()
    if version is None or version < schema.REVISION:
        return None
    if version > schema.REVISION:
        raise LedgerError(
            f"the ledger's tables are of version {version}, this release knows {schema.REVISION}: a newer release has "
            "migrated them; nothing was changed. Upgrade this installation"
        )
    found: str | None = connection.execute(sa.select(schema.ledger_meta.c.ledger_id)).scalar()
    return found


def migrate(connection: sa.Connection, *, create: bool) -> str:
    """Bring the tables to this release within the caller's transaction, one process at a time; gives the ledger's id.

    ``create`` False: raises LedgerUnavailable where there are no tables at all.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    found = ready_id(connection)
    if found is not None:
        return found
    if not create and not sa.inspect(connection).has_table(schema.VERSION_TABLE):
        raise LedgerUnavailable(
            "this database holds no ledger: nothing new is launched; check the URL, or open it once with the right to "
            "create one"
        )
    _upgrade(connection)
    return _identify(connection)


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, schema.REVISION)


def _identify(connection: sa.Connection) -> str:
    found: str | None = connection.execute(sa.select(schema.ledger_meta.c.ledger_id)).scalar()
    if found is None:
        found = uuid.uuid4().hex
        created = datetime.now(UTC).isoformat()
        row = {"id": 1, "ledger_id": found, "position": 0, "created_at": created}
        connection.execute(schema.ledger_meta.insert().values(row))
    return found
