"""The record, its heads and documents, the projections, and the triggers that keep the record append-only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = ("entry", "document")


def upgrade() -> None:
    """Create everything."""
    _record()
    _rollouts()
    _leases()
    _switches()
    triggers = _sqlite_triggers() if op.get_bind().dialect.name == "sqlite" else _postgres_triggers()
    for statement in triggers:
        op.execute(sa.text(statement))


def _record() -> None:
    op.create_table(
        "ledger_meta",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("ledger_id", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
    )
    op.create_table(
        "entry",
        sa.Column("chain", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("target", sa.Text),
        sa.Column("step", sa.Text),
        sa.Column("actor", sa.Text),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("previous", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.UniqueConstraint("chain", "key", name="uq_entry_chain_key"),
        sa.UniqueConstraint("position", name="uq_entry_position"),
    )
    op.create_index("ix_entry_chain_kind", "entry", ["chain", "kind", "seq"])
    op.create_index("ix_entry_chain_target", "entry", ["chain", "target", "seq"])
    op.create_table(
        "chain_head",
        sa.Column("chain", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
    )
    op.create_table(
        "document",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
    )


def _rollouts() -> None:
    op.create_table(
        "rollout",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("plan_digest", sa.Text),
        sa.Column("emergency", sa.Boolean, nullable=False),
        sa.Column("opened_at", sa.Text, nullable=False),
        sa.Column("opened_position", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.Text, nullable=False),
        sa.Column("waits_for", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("run", sa.Text),
    )
    op.create_index("ix_rollout_policy", "rollout", ["policy", "opened_position"])
    op.create_table(
        "target_row",
        sa.Column("rollout", sa.Text, primary_key=True),
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("wave", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("waits_for", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("undo_outcome", sa.Text),
        sa.Column("began_at", sa.Text),
        sa.Column("began_position", sa.BigInteger),
        sa.Column("ended_at", sa.Text),
        sa.Column("signature", sa.Text),
    )
    op.create_index("ix_target_row_target", "target_row", ["target"])
    op.create_table(
        "intent",
        sa.Column("rollout", sa.Text, primary_key=True),
        sa.Column("step_id", sa.Text, primary_key=True),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("handle", sa.Text),
        sa.Column("open", sa.Boolean, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_intent_target", "intent", ["target", "open"])
    op.create_index("ix_intent_open", "intent", ["open", "rollout"])
    op.create_table(
        "run",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("rollout", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("began_at", sa.Text, nullable=False),
        sa.Column("ended_at", sa.Text),
    )
    op.create_index("ix_run_rollout", "run", ["rollout"])


def _leases() -> None:
    op.create_table(
        "lease",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("rollout", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Text, nullable=False),
        sa.Column("released", sa.Boolean, nullable=False),
    )
    op.create_index("ix_lease_target", "lease", ["rollout", "target"])
    op.create_index("ix_lease_released", "lease", ["released"])
    op.create_table(
        "lease_claim",
        sa.Column("lease", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("max_holders", sa.Integer, nullable=False),
    )
    op.create_index("ix_lease_claim_name", "lease_claim", ["kind", "name"])


def _switches() -> None:
    op.create_table(
        "quarantine",
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("rollout", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", sa.Text, nullable=False),
        sa.Column("until", sa.Text),
    )
    op.create_table(
        "stop_switch",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("engaged", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("actor", sa.Text),
        sa.Column("at", sa.Text, nullable=False),
    )


def _sqlite_triggers() -> list[str]:
    statements = [
        f"CREATE TRIGGER {table}_refuses_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, 'table {table} is append-only'); END"
        for table in APPEND_ONLY
        for verb in ("UPDATE", "DELETE")
    ]
    # INSERT OR REPLACE deletes without firing the delete trigger, so an insert over a row that exists is refused, too.
    exists = {
        "entry": "SELECT 1 FROM entry WHERE (chain = NEW.chain AND (seq = NEW.seq OR key = NEW.key)) "
        "OR position = NEW.position",
        "document": "SELECT 1 FROM document WHERE digest = NEW.digest",
    }
    return statements + [
        f"CREATE TRIGGER {table}_refuses_replace BEFORE INSERT ON {table} WHEN EXISTS ({query}) "
        f"BEGIN SELECT RAISE(ABORT, 'table {table} is append-only'); END"
        for table, query in exists.items()
    ]


def _postgres_triggers() -> list[str]:
    function = (
        "CREATE FUNCTION patching_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'table % is append-only', TG_TABLE_NAME; END $$"
    )
    return [function] + [
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION patching_append_only()"
        for table in APPEND_ONLY
    ]
