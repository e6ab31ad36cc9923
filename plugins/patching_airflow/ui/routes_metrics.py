"""The metrics endpoint: which change did this, for Prometheus; it authenticates and authorises like the reading API."""

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from patching.report.change_metrics import change_metrics, shown_in_metrics
from patching_airflow.ui.ledger_access import LedgerAccess
from patching_airflow.ui.routes_rollouts import Reader, user_of
from patching_airflow.ui.security import Guard


def build_metrics_router(guard: Guard, access: LedgerAccess) -> APIRouter:
    """Make the route behind a guard; it names only rollouts whose DAG the user may read."""
    router = APIRouter(prefix="/api", dependencies=[Depends(guard.authenticate)])
    reader = Reader(guard, access)
    User = user_of(guard)  # noqa: N806 - it is a type

    @router.get("/metrics")
    def metrics(request: Request, user: User) -> Response:
        ledger = access.ledger
        now = ledger.now()
        rows = [row for row in reader.listed(request, user, None, open_only=False) if shown_in_metrics(row, now)]
        text = change_metrics([(row, ledger.targets(row.id)) for row in rows], stopped=ledger.stopped() is not None)
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        return Response(text, media_type=CONTENT_TYPE_LATEST, headers=headers)

    return router
