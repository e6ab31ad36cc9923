"""``patching compliance``: targets × findings from the ledger, for auditors, spreadsheets and people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from patching.cli.ledger import AsJson, Url, open_named
from patching.errors import LedgerError, LedgerUnavailable, PatchingError, PlanRefused
from patching.ledger.entry import EntryKind
from patching.ledger.store import SqlLedger
from patching.plan.document import Plan
from patching.report.compliance import ComplianceRow, Recorded, compliance

SCHEMA = "patching/compliance/v1"
OK, FAILED, PENDING = 0, 1, 3
REMEDY = (
    "What older plans of its policy say counts as unknown until a new plan of the whole policy is made; the release "
    "that made that plan still reads it (docs/runbooks/cannot-be-looked-after.md)"
)
HISTORY = 60

Policies = Annotated[list[str] | None, typer.Option("--policy", help="Only this policy; may be given several times.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV, a row for every target and finding.")]
ExitCode = Annotated[bool, typer.Option("--exit-code", help="Exit with 3 when a finding is overdue.")]


def compliance_command(
    policy: Policies = None, as_csv: AsCsv = False, as_json: AsJson = False, exit_code: ExitCode = False, url: Url = ""
) -> int:
    """Say where every target stands with every finding: closed, open, left out, unknown, since when, and when due.

    It reads the ledger's database: what the newest plan says of a target, and what became of it. A target that could
    not be looked at is unknown, never compliant. `known_since` goes back over the last 60 plans of a policy.
    A plan that this release cannot read is named, and what stood before it is unknown.
    Exit code 0: it is printed. 1: the ledger has no plan of it, or one that cannot be read. 2: --csv and --json at
    once. 3: with --exit-code, a finding is overdue.
    """
    if as_csv and as_json:
        raise typer.BadParameter("--csv and --json at once")
    unread: dict[str, str] = {}
    rows = _rows(open_named(url), policy or [], unread)
    for name, why in unread.items():
        print(f"the plan of rollout {name} cannot be read: {why}. {REMEDY}", file=sys.stderr)
    from patching.report import compliance_table

    if as_csv:
        print(compliance_table.to_csv(rows), end="")
    elif as_json:
        document = {
            "schema": SCHEMA,
            "policies": compliance_table.summary(rows),
            "rows": [row.model_dump(mode="json") for row in rows],
            "unread": [{"rollout": name, "reason": why} for name, why in unread.items()],
        }
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print(compliance_table.text(rows))
    if unread:
        return FAILED
    return PENDING if exit_code and any(row.overdue for row in rows) else OK


def _rows(ledger: SqlLedger, wanted: list[str], unread: dict[str, str]) -> list[ComplianceRow]:
    """Read every policy's newest plans; raises PatchingError where there is none.

    Those that cannot be read and still count are put into ``unread``, with why.
    """
    known = dict.fromkeys(row.policy for row in ledger.rollouts(limit=1_000_000))
    missing = [name for name in wanted if name not in known]
    now = ledger.now()
    rows = []
    for name in sorted(wanted or known):
        rows += compliance(_history(ledger, name, unread), now) if name in known else []
    if missing or not rows:
        which = f"of {', '.join(missing)}" if missing else "at all"
        raise PatchingError(
            f"the ledger has no plan {which}, so nothing can be said of its targets: run `patching plan` once"
        )
    return rows


def _history(ledger: SqlLedger, policy: str, unread: dict[str, str]) -> Iterator[Recorded]:
    """Read a policy's rollouts that have a plan, newest first, one at a time."""
    whole = False
    for row in ledger.rollouts(policy=policy, limit=HISTORY):
        if row.plan_digest is None:
            continue
        plan, why = _plan(ledger, row.plan_digest)
        if plan is None and not whole:
            unread[row.id] = why
        found = Recorded(
            row=row, plan=plan, targets=tuple(ledger.targets(row.id)), not_active=_not_active(ledger, row.id)
        )
        whole = whole or found.whole
        yield found


def _plan(ledger: SqlLedger, digest: str) -> tuple[Plan | None, str]:
    try:
        return Plan.frozen(ledger.document(digest), digest), ""
    except LedgerUnavailable:
        raise
    except (PlanRefused, LedgerError) as error:
        return None, str(error)


def _not_active(ledger: SqlLedger, rollout: str) -> tuple[str, ...]:
    """Name the targets whose change was applied and whose services still run the old files."""
    active: dict[str, bool] = {}
    for entry in ledger.entries(rollout, kinds=[EntryKind.TARGET_OUTCOME]):
        active[str(entry.target)] = bool(entry.body.get("active", True))
    return tuple(sorted(name for name, told in active.items() if not told))
