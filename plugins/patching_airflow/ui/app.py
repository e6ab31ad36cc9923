"""The application that Airflow's API server mounts under /patching."""

import logging
from functools import lru_cache

from fastapi import FastAPI, Request, status
from fastapi.responses import JSONResponse

from patching.errors import LedgerError
from patching_airflow.ui.ledger_access import LedgerAccess, LedgerFactory, configured_ledger
from patching_airflow.ui.page import build_page_router
from patching_airflow.ui.routes_control import build_control_router
from patching_airflow.ui.routes_incidents import build_incident_router
from patching_airflow.ui.routes_metrics import build_metrics_router
from patching_airflow.ui.routes_rollouts import build_router
from patching_airflow.ui.security import Guard, airflow_guard

log = logging.getLogger(__name__)


def create_app(ledger_factory: LedgerFactory | None = None, guard: Guard | None = None) -> FastAPI:
    """Make the application; without arguments with Airflow's security and the configured ledger.

    It has no /docs and no /openapi.json: they would be open to anybody.
    """
    app = FastAPI(title="patching", docs_url=None, redoc_url=None, openapi_url=None)
    guard, access = guard or airflow_guard(), LedgerAccess(ledger_factory or configured_ledger)
    app.include_router(build_router(guard, access))
    app.include_router(build_incident_router(guard, access))
    app.include_router(build_metrics_router(guard, access))
    app.include_router(build_control_router(guard, access))
    app.include_router(build_page_router())
    app.add_exception_handler(LedgerError, _ledger_failed)
    return app


async def _ledger_failed(_request: Request, error: Exception) -> JSONResponse:
    """Say that the ledger cannot be read, without saying where it is: that stands in the log."""
    log.error("the ledger cannot be read for the Patching pages: %s", error)
    detail = "the ledger cannot be read, so nothing here is known; the API server's log says why"
    return JSONResponse({"detail": detail}, status.HTTP_503_SERVICE_UNAVAILABLE)


@lru_cache(maxsize=1)
def shared_app() -> FastAPI:
    """Give the one application of this process."""
    return create_app()
