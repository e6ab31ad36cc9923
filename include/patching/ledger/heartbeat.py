"""Heartbeats: one row for each who is watched; the dead man's switch reads how old it is."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from patching.ledger import schema
from patching.ledger.base import Beat

COLUMNS = schema.heartbeat.c


def beat(connection: sa.Connection, name: str, now: datetime) -> Beat | None:
    """Write a beat; gives the one before."""
    before = connection.execute(sa.select(schema.heartbeat).where(COLUMNS.name == name)).mappings().first()
    row = {"name": name, "at": now.isoformat(), "beats": before["beats"] + 1 if before else 1}
    if before is None:
        connection.execute(schema.heartbeat.insert().values(row))
        return None
    connection.execute(schema.heartbeat.update().where(COLUMNS.name == name).values(row))
    return Beat.model_validate(dict(before))


def beats(connection: sa.Connection) -> list[Beat]:
    """List all of them by name."""
    rows = connection.execute(sa.select(schema.heartbeat).order_by(COLUMNS.name)).mappings()
    return [Beat.model_validate(dict(row)) for row in rows]
