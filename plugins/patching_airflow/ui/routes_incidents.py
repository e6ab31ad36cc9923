"""The reading API of incidents: which undos failed, what they lock, and what was gathered of each target."""

from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response, status

from patching.report.incident_view import incident_line, incident_view
from patching.rollout.incidents import incident as incident_of
from patching.rollout.incidents import incidents
from patching_airflow.ui.ledger_access import LedgerAccess
from patching_airflow.ui.routes_rollouts import answer, dags_of, user_of
from patching_airflow.ui.security import Access, Guard


def build_incident_router(guard: Guard, access: LedgerAccess) -> APIRouter:
    """Make the reading routes behind a guard; an incident's evidence has output of steps, so it needs their logs."""
    router = APIRouter(prefix="/api", dependencies=[Depends(guard.authenticate)])
    User = user_of(guard)  # noqa: N806 - it is a type

    def may(request: Request, user: Any, rollout: str, wanted: Access) -> bool:
        row = access.ledger.rollout(rollout)
        return row is not None and guard.may(request, user, dags_of(row), wanted)

    @router.get("/incidents")
    def listed(request: Request, user: User) -> Response:
        found = [item for item in incidents(access.ledger) if may(request, user, item.rollout, Access.ROLLOUT)]
        lines = [incident_line(item) for item in reversed(found)]
        return answer(request, {"schema_version": 1, "as_of": access.ledger.now().isoformat(), "incidents": lines})

    @router.get("/incidents/{incident}")
    def one(request: Request, user: User, incident: str) -> Response:
        found = incident_of(access.ledger, incident)
        if found is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND, "the ledger has no such incident")
        if not may(request, user, found.rollout, Access.LOG):
            raise HTTPException(status.HTTP_403_FORBIDDEN, "you may not read the logs of this rollout's DAG")
        evidence = {target: access.document(digest) for target, digest in found.evidence.items()}
        return answer(request, incident_view(found, evidence))

    return router
