"""The ledger's tables: the append-only record, and the projections that can be rebuilt from it.

``lease_wait`` is neither: it is the queue of those who wait now, and empties by itself.

Moments are text (ISO 8601, UTC) because the hash covers exactly what is stored; JSON is canonical text (RFC 8785).
"""

from __future__ import annotations

import sqlalchemy as sa

REVISION = "0004"
VERSION_TABLE = "patching_alembic_version"

metadata = sa.MetaData()

ledger_meta = sa.Table(
    "ledger_meta",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("ledger_id", sa.Text, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
)

entry = sa.Table(
    "entry",
    metadata,
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
    sa.Index("ix_entry_chain_kind", "chain", "kind", "seq"),
    sa.Index("ix_entry_chain_target", "chain", "target", "seq"),
)

chain_head = sa.Table(
    "chain_head",
    metadata,
    sa.Column("chain", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)

document = sa.Table(
    "document",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
)

rollout = sa.Table(
    "rollout",
    metadata,
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
    sa.Index("ix_rollout_policy", "policy", "opened_position"),
)

target_row = sa.Table(
    "target_row",
    metadata,
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
    sa.Index("ix_target_row_target", "target"),
)

intent = sa.Table(
    "intent",
    metadata,
    sa.Column("rollout", sa.Text, primary_key=True),
    sa.Column("step_id", sa.Text, primary_key=True),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("step", sa.Text, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("handle", sa.Text),
    sa.Column("open", sa.Boolean, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Index("ix_intent_target", "target", "open"),
    sa.Index("ix_intent_open", "open", "rollout"),
)

quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("rollout", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("since", sa.Text, nullable=False),
    sa.Column("until", sa.Text),
)

lease = sa.Table(
    "lease",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("rollout", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Text, nullable=False),
    sa.Column("released", sa.Boolean, nullable=False),
    sa.Index("ix_lease_target", "rollout", "target"),
    sa.Index("ix_lease_released", "released"),
)

lease_claim = sa.Table(
    "lease_claim",
    metadata,
    sa.Column("lease", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("max_holders", sa.Integer, nullable=False),
    sa.Index("ix_lease_claim_name", "kind", "name"),
)

lease_wait = sa.Table(
    "lease_wait",
    metadata,
    sa.Column("rollout", sa.Text, primary_key=True),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("place", sa.BigInteger, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("holds", sa.Boolean, nullable=False),
    sa.Column("claims", sa.Text, nullable=False),
    sa.Column("since", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Text, nullable=False),
    sa.UniqueConstraint("place", name="uq_lease_wait_place"),
)

stop_switch = sa.Table(
    "stop_switch",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("engaged", sa.Boolean, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("actor", sa.Text),
    sa.Column("at", sa.Text, nullable=False),
)

run = sa.Table(
    "run",
    metadata,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("rollout", sa.Text, nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("began_at", sa.Text, nullable=False),
    sa.Column("ended_at", sa.Text),
    sa.Index("ix_run_rollout", "rollout"),
)

heartbeat = sa.Table(
    "heartbeat",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("beats", sa.BigInteger, nullable=False),
)

PROJECTIONS = (rollout, target_row, intent, quarantine, lease_claim, lease, stop_switch, run)
