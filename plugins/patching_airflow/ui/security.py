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
    """What is wanted, as Airflow's method and part of a DAG.

    ROLLOUT and LOG read: how a rollout stands, what its steps printed. CONTROL changes a rollout, as who may edit the
    runs of its DAG. EVERYTHING is about no DAG but all of them: it is asked without a DAG id.
    """

    ROLLOUT = ("GET", "RUN")
    LOG = ("GET", "TASK_LOGS")
    CONTROL = ("PUT", "RUN")
    EVERYTHING = ("PUT", None)


@dataclass(frozen=True)
class Guard:
    """Who asks, and may they?

    ``authenticate`` is a FastAPI dependency that gives the user or raises 401. ``authorise`` raises 403 unless the
    user has that access to a DAG (None: to all of them). ``name`` says who the user is, for the ledger. None of them
    has a default: a guard that was forgotten cannot let anybody in.
    """

    authenticate: Callable[..., Any]
    authorise: Callable[[Request, Any, str | None, Access], None]
    name: Callable[[Any], str]

    def may(self, request: Request, user: Any, dag_ids: Iterable[str], access: Access) -> bool:
        """Say whether the user has that access to at least one of the DAGs."""
        return any(self._allowed(request, user, dag_id, access) for dag_id in dag_ids)

    def may_all(self, request: Request, user: Any) -> bool:
        """Say whether the user may change all DAGs, whichever there are."""
        return self._allowed(request, user, None, Access.EVERYTHING)

    def _allowed(self, request: Request, user: Any, dag_id: str | None, access: Access) -> bool:
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


def _refuse_access(_request: Request, _user: Any, _dag_id: str | None, _access: Access) -> None:
    _refuse()


def _nobody(_user: Any) -> str:
    _refuse()
    return ""


DENY_ALL = Guard(authenticate=_refuse, authorise=_refuse_access, name=_nobody)


def name_of(user: Any) -> str:
    """Name a user of Airflow by the id of the login, with the user name where that is another."""
    identity, name = str(user.get_id()), str(user.get_name())
    return identity if name in ("", identity) else f"{name} (id {identity})"


def airflow_guard() -> Guard:
    """Make the guard that asks Airflow's auth manager; whatever goes wrong while loading it gives DENY_ALL."""
    try:
        from airflow.api_fastapi.app import get_auth_manager
        from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
        from airflow.api_fastapi.core_api.security import get_user, requires_access_dag

        entities = {access: DagAccessEntity(access.value[1]) for access in Access if access.value[1]}
    except Exception:
        log.exception("Airflow's security cannot be loaded: the Patching pages refuse every request")
        return DENY_ALL

    def authorise(request: Request, user: Any, dag_id: str | None, access: Access) -> None:
        # Without a DAG id Airflow's own check would take one from the query: whoever may edit one DAG would name it
        # there and pass for somebody who may edit all.
        if access is Access.EVERYTHING:
            if not get_auth_manager().is_authorized_dag(method="PUT", details=DagDetails(), user=user):
                raise HTTPException(status.HTTP_403_FORBIDDEN, "Forbidden")
            return
        if not dag_id:
            raise HTTPException(status.HTTP_403_FORBIDDEN, "Forbidden")
        requires_access_dag(access.value[0], entities[access], param_dag_id=dag_id)(request, user)

    return Guard(authenticate=get_user, authorise=authorise, name=name_of)
