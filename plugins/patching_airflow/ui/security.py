"""Security of the pages: the only place that imports Airflow's; if that fails, everybody is refused everything.

Airflow does not authenticate requests to an application that a plugin mounts, so every route that shows data depends
on a Guard.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from fastapi import HTTPException, Request, status

log = logging.getLogger(__name__)


class Access(Enum):
    """What is read: how a rollout stands, or what its steps printed (in Airflow's words: runs, or task logs)."""

    ROLLOUT = "RUN"
    LOG = "TASK_LOGS"


@dataclass(frozen=True)
class Guard:
    """Who asks, and may they?

    ``authenticate`` is a FastAPI dependency that gives the user or raises 401. ``authorise`` raises 403 unless the
    user may read that part of a DAG. Neither has a default: a guard that was forgotten cannot let anybody in.
    """

    authenticate: Callable[..., Any]
    authorise: Callable[[Request, Any, str, Access], None]

    def may(self, request: Request, user: Any, dag_ids: Iterable[str], access: Access) -> bool:
        """Say whether the user may read that part of at least one of the DAGs."""
        return any(self._allowed(request, user, dag_id, access) for dag_id in dag_ids)

    def _allowed(self, request: Request, user: Any, dag_id: str, access: Access) -> bool:
        try:
            self.authorise(request, user, dag_id, access)
        except HTTPException as refusal:
            if refusal.status_code in (status.HTTP_401_UNAUTHORIZED, status.HTTP_403_FORBIDDEN):
                return False
            raise
        return True


def _refuse() -> None:
    raise HTTPException(
        status.HTTP_403_FORBIDDEN,
        "Airflow's security could not be loaded, so everything is refused; the API server's log says why",
    )


def _refuse_access(_request: Request, _user: Any, _dag_id: str, _access: Access) -> None:
    _refuse()


DENY_ALL = Guard(authenticate=_refuse, authorise=_refuse_access)


def airflow_guard() -> Guard:
    """Make the guard that asks Airflow's auth manager; whatever goes wrong while loading it gives DENY_ALL."""
    try:
        from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
        from airflow.api_fastapi.core_api.security import get_user, requires_access_dag

        entities = {access: DagAccessEntity(access.value) for access in Access}
    except Exception:
        log.exception("Airflow's security cannot be loaded: the Patching pages refuse every request")
        return DENY_ALL

    def authorise(request: Request, user: Any, dag_id: str, access: Access) -> None:
        requires_access_dag("GET", entities[access], param_dag_id=dag_id)(request, user)

    return Guard(authenticate=get_user, authorise=authorise)
