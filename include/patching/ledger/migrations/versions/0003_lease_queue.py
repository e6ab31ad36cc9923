"""The queue of those who wait for leases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the queue; older releases refuse the ledger then, as they would pass by who waits."""
    op.create_table(
        "lease_wait",
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
