"""Verifying: recompute every hash from what is stored, and say what each difference means."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence

import sqlalchemy as sa

from patching.ledger import schema
from patching.ledger.base import Head, Problem
from patching.ledger.chain import ChainCheck

ENTRY, HEAD = schema.entry.c, schema.chain_head.c

WHOLE = "(whole ledger)"
DOCUMENT_KEYS = ("plan", "policy", "snapshots", "preflight", "data", "markdown", "json", "snapshot")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PAGE = 1000


def verify(connection: sa.Connection, chain: str | None) -> list[Problem]:
    """Check one chain, or all of them and that no position of the whole ledger is missing."""
    documents = Documents(connection)
    problems: list[Problem] = []
    for name in [chain] if chain is not None else known_chains(connection):
        problems.extend(_verify_chain(connection, name, documents))
    if chain is None:
        problems.extend(_verify_positions(connection))
    return problems


def heads(connection: sa.Connection) -> list[Head]:
    """List where every chain ends: what has to be kept elsewhere to prove later that nothing was cut off."""
    rows = connection.execute(sa.select(schema.chain_head).order_by(HEAD.chain)).all()
    return [Head(chain=row.chain, seq=row.seq, hash=row.hash) for row in rows]


def check_heads(connection: sa.Connection, kept: Sequence[Head]) -> list[Problem]:
    """Check that the ledger still contains heads that were kept elsewhere."""
    problems = []
    for head in kept:
        query = sa.select(ENTRY.hash).where(ENTRY.chain == head.chain, ENTRY.seq == head.seq)
        found = connection.execute(query).scalar()
        if found == head.hash:
            continue
        said = "is gone" if found is None else f"has another hash ({found[:12]}…)"
        message = (
            f"the head that was kept elsewhere ({head.hash[:12]}…) {said}: the chain was cut off, rewritten, or an "
            "older backup was restored"
        )
        problems.append(Problem(chain=head.chain, seq=head.seq, message=message))
    return problems


def known_chains(connection: sa.Connection) -> list[str]:
    """List the chains that have entries or a head."""
    query = sa.union(sa.select(ENTRY.chain), sa.select(HEAD.chain))
    return sorted(connection.execute(query).scalars())


class Documents:
    """Checks referenced documents, each one once."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._seen: dict[str, str | None] = {}

    def problem(self, digest: str) -> str | None:
        """Say what is wrong with a document, None if it is there and unchanged."""
        if digest not in self._seen:
            query = sa.select(schema.document.c.body).where(schema.document.c.digest == digest)
            self._seen[digest] = self._judge(self._connection.execute(query).scalar(), digest)
        return self._seen[digest]

    @staticmethod
    def _judge(text: str | None, digest: str) -> str | None:
        if text is None:
            return "is missing: what was decided on its ground can no longer be shown"
        return None if hashlib.sha256(text.encode()).hexdigest() == digest else "was changed after it was stored"


def _verify_chain(connection: sa.Connection, chain: str, documents: Documents) -> Iterator[Problem]:
    check = ChainCheck(chain)
    for row in _rows(connection, chain):
        for seq, message in check.row(row):
            yield Problem(chain=chain, seq=seq, message=message)
        for name, digest in references(row["body"]):
            problem = documents.problem(digest)
            if problem:
                message = f'document {digest[:12]}… ("{name}") {problem}'
                yield Problem(chain=chain, seq=row["seq"], message=message)
    head = connection.execute(sa.select(HEAD.seq, HEAD.hash).where(HEAD.chain == chain)).first()
    for seq, message in check.finish((head.seq, head.hash) if head else None):
        yield Problem(chain=chain, seq=seq, message=message)


def _rows(connection: sa.Connection, chain: str) -> Iterator[sa.RowMapping]:
    after = -1
    while True:
        query = sa.select(schema.entry).where(ENTRY.chain == chain, ENTRY.seq > after).order_by(ENTRY.seq).limit(_PAGE)
        rows = connection.execute(query).mappings().all()
        yield from rows
        if len(rows) < _PAGE:
            return
        after = rows[-1]["seq"]


def references(body: str) -> Iterable[tuple[str, str]]:
    """Give (name, digest) of every document that an entry's stored body refers to."""
    try:
        fields = json.loads(body)
    except ValueError:
        return []
    if not isinstance(fields, dict):
        return []
    found = [(name, fields[name]) for name in DOCUMENT_KEYS if isinstance(fields.get(name), str)]
    return [(name, value) for name, value in found if _DIGEST.fullmatch(value)]


def _verify_positions(connection: sa.Connection) -> Iterator[Problem]:
    expected = connection.execute(sa.select(schema.ledger_meta.c.position)).scalar() or 0
    count, last = connection.execute(sa.select(sa.func.count(), sa.func.max(ENTRY.position))).one()
    if (count, last or 0) != (expected, expected):
        message = (
            f"{expected} entries were written in all, {count} are here: entries or whole chains were removed or added"
        )
        yield Problem(chain=WHOLE, seq=expected, message=message)
