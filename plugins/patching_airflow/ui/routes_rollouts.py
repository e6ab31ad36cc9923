"""The reading API: rollouts, their plans and reports, one target's step log, and the rollout of a DAG run.

Nothing here changes anything. Every route authenticates first; the rollout's own DAG then decides who may read it.
"""

import json
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response, status

from patching.ledger.base import RolloutRow
from patching.ledger.entry import CONTROL, EntryKind
from patching.report.acts import stop_acts
from patching.report.lease_view import lease_view
from patching.report.quarantine_view import quarantine_view
from patching.report.rollout_report import make_report
from patching.report.rollout_view import VIEW_KINDS, overview_line, rollout_view, run_without_rollout, waves_begun
from patching.report.sentences import target_waits
from patching.report.target_view import target_view
from patching.rollout.incidents import incidents, lock_of
from patching.rollout.quarantine import quarantined
from patching.value import JsonValue, digest
from patching_airflow.ui.ledger_access import LedgerAccess
from patching_airflow.ui.security import Access, Guard

EMERGENCY_DAG = "patch_emergency"
MOST_READ = 1000
MOST_LISTED = 100
NOT_YET = "this run has no rollout yet: its task discover has not ended, or failed (its log says why)"


STOPPING = frozenset({"hold", "abort", "abort-now", "skip"})


def dags_to_change(row: RolloutRow, act: str) -> tuple[str, ...]:
    """Name the DAGs of which one must be the user's to change.

    An emergency has a permission of its own, so only that lets it go on; to stop it, its policy's will do too.
    """
    if row.emergency and act not in STOPPING:
        return (EMERGENCY_DAG,)
    return dags_of(row)


class Permitted:
    """Says whether a user may do an act to a rollout; each answer is asked of Airflow once."""

    def __init__(self, guard: Guard, request: Request, user: Any, row: RolloutRow) -> None:
        self._ask = lru_cache(lambda dags: guard.may(request, user, dags, Access.CONTROL))
        self._all = lru_cache(lambda: guard.may_all(request, user))
        self._row = row

    def __call__(self, act: str) -> bool:
        """Say whether the user may do it, as Airflow answers."""
        return bool(self._all() if act == "stop-all" else self._ask(dags_to_change(self._row, act)))


def dags_of(row: RolloutRow) -> tuple[str, ...]:
    """Name the DAGs whose readers may read a rollout: its policy's, and the emergency DAG for an emergency."""
    own = f"patch__{row.policy}"
    return (own, EMERGENCY_DAG) if row.emergency else (own,)


def answer(request: Request, document: dict[str, JsonValue]) -> Response:
    """Give a document, or 304 when the reader has it already; when it was made does not count as a change."""
    tag = f'"{digest({key: value for key, value in document.items() if key != "as_of"})[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    content = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    return Response(content, media_type="application/json", headers=headers)


class Reader:
    """Finds rollouts for a user: authorised first, then read."""

    def __init__(self, guard: Guard, access: LedgerAccess) -> None:
        self.guard = guard
        self.access = access

    def permitted(self, request: Request, user: Any, rollout: str, access: Access) -> RolloutRow:
        """Give a rollout that the user may read; raises 403, or 404 where there is none."""
        row = self.access.ledger.rollout(rollout)
        if row is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND, "the ledger has no such rollout")
        if not self.guard.may(request, user, dags_of(row), access):
            raise HTTPException(status.HTTP_403_FORBIDDEN, "you may not read the DAG of this rollout")
        return row

    def listed(self, request: Request, user: Any, policy: str | None, *, open_only: bool) -> list[RolloutRow]:
        """List the newest rollouts whose DAG the user may read; others do not appear, not even as a number."""
        may: dict[tuple[str, ...], bool] = {}
        rows = []
        for row in self.access.ledger.rollouts(policy=policy, open_only=open_only, limit=MOST_READ):
            dags = dags_of(row)
            if dags not in may:
                may[dags] = self.guard.may(request, user, dags, Access.ROLLOUT)
            if may[dags]:
                rows.append(row)
        return rows[:MOST_LISTED]

    def view(self, row: RolloutRow) -> dict[str, JsonValue]:
        """Make the page's document of a rollout."""
        ledger = self.access.ledger
        entries = ledger.entries(row.id, kinds=VIEW_KINDS)
        wanted = {str(entry.body.get("data")) for entry in entries if entry.kind is EntryKind.MEASURED}
        return rollout_view(
            row,
            ledger.targets(row.id),
            self.access.plan(row),
            entries,
            ledger.now(),
            measured={name: self.access.document(name) for name in wanted},
            stopped=ledger.stopped(),
            locked=lock_of(ledger, row.policy),
        )

    def view_for(self, request: Request, user: Any, row: RolloutRow) -> dict[str, JsonValue]:
        """Make the page's document of a rollout with only those acts that the user may do."""
        found = self.view(row)
        may = Permitted(self.guard, request, user, row)
        found["acts"] = [item for item in found["acts"] if may(item["act"])]
        found["acts"] += stop_acts(found["stop_switch"]) if may("stop-all") else []
        found["target_acts"] = {name: act for name, act in found["target_acts"].items() if may(name)}
        return found

    def leases(self, request: Request, user: Any) -> dict[str, JsonValue]:
        """Make the document of who holds what and who waits for whom; of rollouts that the user may read."""
        ledger, readable = self.access.ledger, self._readable(request, user)
        return lease_view(ledger.leases(), ledger.waiters(), ledger.held_since(), ledger.now(), readable=readable)

    def quarantine(self, request: Request, user: Any) -> dict[str, JsonValue]:
        """Make the document of every target in quarantine; of rollouts that the user may read."""
        ledger = self.access.ledger
        now = ledger.now()
        return quarantine_view(quarantined(ledger, now), now, readable=self._readable(request, user))

    def _readable(self, request: Request, user: Any) -> Callable[[str], bool]:
        """Give the question whether the user may read a rollout; each is asked once."""
        ledger = self.access.ledger

        @cache
        def readable(rollout: str) -> bool:
            row = ledger.rollout(rollout)
            return row is not None and self.guard.may(request, user, dags_of(row), Access.ROLLOUT)

        return readable

    def of_run(self, request: Request, user: Any, dag_id: str, run_id: str) -> dict[str, JsonValue]:
        """Make the page's document of a DAG run; without a rollout it has the sentence that says why."""
        self.guard.authorise(request, user, dag_id, Access.ROLLOUT)
        ledger = self.access.ledger
        entry = ledger.find(CONTROL, f"run:{dag_id}:{run_id}")
        body = entry.body if entry else {}
        if not body.get("rollout"):
            return run_without_rollout(dag_id, run_id, ledger.now(), str(body.get("sentence") or NOT_YET))
        # A run of one DAG may work on another DAG's rollout (an emergency does): the rollout's own DAG decides.
        return self.view_for(request, user, self.permitted(request, user, str(body["rollout"]), Access.ROLLOUT))


def build_router(guard: Guard, access: LedgerAccess) -> APIRouter:
    """Make the API's routes behind a guard."""
    router = APIRouter(prefix="/api", dependencies=[Depends(guard.authenticate)])
    reader = Reader(guard, access)
    _add_lists(router, guard, reader)
    _add_rollout(router, guard, reader)
    _add_target(router, guard, reader)
    return router


def user_of(guard: Guard) -> Any:
    """Give the type of a parameter that is the logged-in user."""
    return Annotated[Any, Depends(guard.authenticate)]


def _add_lists(router: APIRouter, guard: Guard, reader: Reader) -> None:
    User = user_of(guard)  # noqa: N806 - it is a type

    @router.get("/rollouts")
    def rollouts(
        request: Request, user: User, policy: str | None = None, open_only: Annotated[bool, Query(alias="open")] = False
    ) -> Response:
        rows = reader.listed(request, user, policy, open_only=open_only)
        ledger = reader.access.ledger
        stopped = ledger.stopped()
        locks = {item.policy: item.sentence for item in reversed(incidents(ledger)) if item.locks}
        lines = [
            overview_line(row, ledger.targets(row.id), stopped=stopped, locked=locks.get(row.policy, ""))
            for row in rows
        ]
        document = {"schema_version": 1, "as_of": ledger.now().isoformat(), "stop_switch": stopped}
        acts = stop_acts(stopped) if guard.may_all(request, user) else []
        return answer(request, {**document, "acts": acts, "rollouts": lines})

    @router.get("/leases")
    def leases(request: Request, user: User) -> Response:
        return answer(request, reader.leases(request, user))

    @router.get("/quarantine")
    def quarantine(request: Request, user: User) -> Response:
        return answer(request, reader.quarantine(request, user))

    @router.get("/run/{dag_id}/{run_id:path}")
    def run(request: Request, user: User, dag_id: str, run_id: str) -> Response:
        return answer(request, reader.of_run(request, user, dag_id, run_id))


def _add_rollout(router: APIRouter, guard: Guard, reader: Reader) -> None:
    User = user_of(guard)  # noqa: N806 - it is a type

    @router.get("/rollouts/{rollout}")
    def rollout_of(request: Request, user: User, rollout: str) -> Response:
        return answer(request, reader.view_for(request, user, reader.permitted(request, user, rollout, Access.ROLLOUT)))

    @router.get("/rollouts/{rollout}/plan")
    def plan_of(request: Request, user: User, rollout: str) -> Response:
        row = reader.permitted(request, user, rollout, Access.ROLLOUT)
        plan = reader.access.plan(row)
        if plan is None:
            raise HTTPException(
                status.HTTP_404_NOT_FOUND, "this rollout has no plan yet, or none that this release reads"
            )
        return answer(request, {"schema_version": 1, "digest": plan.digest, "plan": plan.model_dump(mode="json")})

    @router.get("/rollouts/{rollout}/report")
    def report_of(request: Request, user: User, rollout: str) -> Response:
        row, ledger = reader.permitted(request, user, rollout, Access.ROLLOUT), reader.access.ledger
        plan, rows = reader.access.plan(row), ledger.targets(row.id)
        locked = lock_of(ledger, row.policy)
        report = make_report(ledger.entries(row.id), plan, row, rows, ledger.now(), locked=locked)
        document = {"schema_version": 1, "report": report.document, "markdown": report.markdown}
        return answer(request, document)


def _add_target(router: APIRouter, guard: Guard, reader: Reader) -> None:
    User = user_of(guard)  # noqa: N806 - it is a type

    @router.get("/rollouts/{rollout}/targets/{target}")
    def target_of(request: Request, user: User, rollout: str, target: str) -> Response:
        row, ledger = reader.permitted(request, user, rollout, Access.LOG), reader.access.ledger
        found = next((item for item in ledger.targets(row.id) if item.target == target), None)
        if found is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND, "this rollout has no such target")
        entries, locked = ledger.entries(row.id, target=target), lock_of(ledger, row.policy)
        begun = waves_begun(ledger.entries(row.id, kinds=[EntryKind.WAVE_STARTED]))
        lock = locked.sentence if locked else ""
        waits = target_waits(row, found, begun, stopped=ledger.stopped(), locked=lock)
        return answer(request, target_view(found, reader.access.plan(row), entries, ledger.now(), waits_for=waits))
