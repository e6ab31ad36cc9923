"""On PostgreSQL an ordinary append is one call: its lock is held for no round trip and no sync of the disk."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# The first transaction frees the lock before anything is on disk, so that many share one sync; the second makes it so
# before the call returns, in whatever way the server's synchronous_commit asks for. What stands against the append
# undoes it and returns nulls: the caller asks then in the way that says why. The text that is hashed is that of
# ``ledger.entry.framed``; a moment without microseconds has none in Python's ISO 8601 either.
_PROCEDURE = """
CREATE PROCEDURE patching_append(
    of_ledger text, in_chain text, of_kind text, of_key text, of_target text, of_step text, by_actor text,
    with_body text, before_at text, before_seq text, after_seq text, of_lease text, of_epoch integer,
    new_intent jsonb, closes_intent boolean, set_moment timestamptz,
    INOUT new_seq bigint DEFAULT NULL, INOUT new_at text DEFAULT NULL,
    INOUT old_hash text DEFAULT NULL, INOUT new_hash text DEFAULT NULL
) LANGUAGE plpgsql AS $$
DECLARE
    place bigint;
    moment timestamp;
BEGIN
    SET LOCAL synchronous_commit = off;
    PERFORM pg_advisory_xact_lock(7140516302992);
    UPDATE ledger_meta SET position = position + 1 WHERE ledger_id = of_ledger RETURNING position INTO place;
    IF place IS NULL
        OR of_lease IS NOT NULL
        AND NOT EXISTS (SELECT FROM lease WHERE id = of_lease AND epoch = of_epoch AND NOT released)
    THEN
        ROLLBACK;
        RETURN;
    END IF;
    moment := coalesce(set_moment, clock_timestamp()) AT TIME ZONE 'UTC';
    new_at := replace(to_char(moment, 'YYYY-MM-DD"T"HH24:MI:SS.US'), '.000000', '') || '+00:00';
    SELECT seq, hash INTO new_seq, old_hash FROM chain_head WHERE chain = in_chain;
    new_seq := coalesce(new_seq, 0) + 1;
    old_hash := coalesce(old_hash, repeat('0', 64));
    new_hash := encode(
        sha256(convert_to(old_hash || before_at || new_at || before_seq || new_seq || after_seq, 'UTF8')), 'hex');
    INSERT INTO entry (chain, seq, position, at, kind, key, target, step, actor, body, previous, hash)
        VALUES (in_chain, new_seq, place, new_at, of_kind, of_key, of_target, of_step, by_actor, with_body,
            old_hash, new_hash)
        ON CONFLICT (chain, key) DO NOTHING;
    IF NOT FOUND THEN
        new_seq := NULL;
        ROLLBACK;
        RETURN;
    END IF;
    INSERT INTO chain_head (chain, seq, hash) VALUES (in_chain, new_seq, new_hash)
        ON CONFLICT (chain) DO UPDATE SET seq = excluded.seq, hash = excluded.hash;
    IF new_intent IS NOT NULL THEN
        INSERT INTO intent (rollout, step_id, target, step, generation, handle, open, at, position)
            SELECT i.rollout, i.step_id, i.target, i.step, i.generation, i.handle, i.open, new_at, place
            FROM jsonb_populate_record(NULL::intent, new_intent) AS i;
    END IF;
    IF closes_intent THEN
        UPDATE intent SET open = false WHERE rollout = in_chain AND step_id = of_step;
    END IF;
    COMMIT;
    PERFORM pg_logical_emit_message(true, 'patching', '');
END $$
"""


def upgrade() -> None:
    """Create the procedure; SQLite needs none, its caller and its server are one process."""
    if op.get_bind().dialect.name == "postgresql":
        op.get_bind().exec_driver_sql(_PROCEDURE)
