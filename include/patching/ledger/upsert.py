"""One statement instead of looking first: an insert that keeps, or renews, the row that is there, per database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite


def insert_unless_there(table: sa.Table, *unique: str) -> Mapping[str, sa.Insert]:
    """Make the statement by name of dialect; its ``rowcount`` is 0 where a row with the ``unique`` columns exists.

    Without ``preserve_rowcount`` an insert's ``rowcount`` is −1 in PostgreSQL, whatever it did.
    """
    sqlite_insert = sqlite.insert(table).on_conflict_do_nothing(index_elements=unique)
    postgres_insert = postgresql.insert(table).on_conflict_do_nothing(index_elements=unique)
    return {
        "sqlite": sqlite_insert.execution_options(preserve_rowcount=True),
        "postgresql": postgres_insert.execution_options(preserve_rowcount=True),
    }


def insert_or_renew(table: sa.Table, values: Mapping[str, Any], *unique: str) -> Mapping[str, sa.Insert]:
    """Make the statement by name of dialect; where a row with the ``unique`` columns exists it gets the ``values``."""
    made: dict[str, sa.Insert] = {}
    for name, insert in (("sqlite", sqlite.insert(table)), ("postgresql", postgresql.insert(table))):
        renewed = {column: insert.excluded[column] for column in values if column not in unique}
        made[name] = insert.values(dict(values)).on_conflict_do_update(index_elements=unique, set_=renewed)
    return made
