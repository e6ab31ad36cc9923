"""The changing API: what a person may do to rollouts, targets and incidents, and the stop switch; POST, JSON only.

Who acts is who is logged in, never what a body says. A browser cannot be led here from another site: a form cannot send
JSON, and a request that says it comes from another site is refused, whatever cookie it carries.
"""

import json
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from patching.errors import LedgerConflict, TransitionRefused
from patching.ledger.base import RolloutRow
from patching.report.rollout_view import overview_line
from patching.rollout import control, control_targets, incidents
from patching.value import JsonValue
from patching_airflow.ui.ledger_access import LedgerAccess
from patching_airflow.ui.routes_rollouts import EMERGENCY_DAG, dags_to_change
from patching_airflow.ui.security import Access, Guard

MOST_BYTES = 10_000
LONGEST_RUN_REASON = 500
BEGINS_A_RUN = frozenset({"resume", "promote", "undo", "retry"})
OWN_SITE = frozenset({"same-origin", "none"})


class Asked(BaseModel):
    """What a body may say: why. Anything else, an actor above all, is refused."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, strict=True)

    reason: str = Field(min_length=1, max_length=control.LONGEST_REASON)


class AskedPromotion(Asked):
    """A promotion may name the wave that was looked at: any other is refused."""

    wave: int | None = Field(default=None, ge=1)


class AskedAbort(Asked):
    """An abort with ``now: true`` cancels what only reads or downloads."""

    now: bool = False


class AskedUndo(Asked):
    """An undo may leave out what cannot be undone, and name targets that the person has restored."""

    others: bool = False
    restored: list[str] = Field(default_factory=list, max_length=1000)


class AskedSkip(Asked):
    """A target to leave out."""

    target: str = Field(min_length=1)


class AskedRetry(Asked):
    """One target to try again; without it all that failed."""

    target: str | None = Field(default=None, min_length=1)


class AskedStop(Asked):
    """The stop switch is turned on, or off with ``on: false``."""

    on: bool = True


def build_control_router(guard: Guard, access: LedgerAccess) -> APIRouter:
    """Make the changing routes behind a guard."""
    router = APIRouter(prefix="/api", dependencies=[Depends(guard.authenticate)])
    for name, (act, asked) in ACTS.items():
        router.add_api_route(
            f"/rollouts/{{rollout}}/{name}", _changing(guard, access, name, act, asked), methods=["POST"]
        )
    router.add_api_route("/stop-all", _stopping(guard, access), methods=["POST"])
    router.add_api_route("/targets/{target}/release", _releasing(guard, access), methods=["POST"])
    router.add_api_route("/incidents/{incident}/release", _releasing_incident(guard, access), methods=["POST"])
    return router


def _changing(guard: Guard, access: LedgerAccess, name: str, act: Any, body: type[Asked]) -> Callable[..., Response]:
    User, Body = _user(guard), _body(guard, body)  # noqa: N806 - they are types

    def change(request: Request, user: User, rollout: str, asked: Body) -> Response:
        row = access.ledger.rollout(rollout)
        if row is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND, "the ledger has no such rollout")
        if not guard.may(request, user, dags_to_change(row, name), Access.CONTROL):
            raise HTTPException(status.HTTP_403_FORBIDDEN, "you may not change the runs of this rollout's DAG")
        person = guard.name(user)
        more = asked.model_dump(exclude={"reason"})
        _known_target(access, rollout, more.get("target"))
        done = _decided(lambda: act(access.ledger, rollout, person, asked.reason, **more))
        now, goes_on = done.row or row, name in BEGINS_A_RUN and done.goes_on
        document = {
            "rollout": overview_line(now, access.ledger.targets(rollout)),
            "run": run_to_trigger(now, f"{name} by {person}: {asked.reason}") if goes_on else None,
        }
        return _answer(access, name, person, asked, done, document)

    return change


def _stopping(guard: Guard, access: LedgerAccess) -> Callable[..., Response]:
    User, Body = _user(guard), _body(guard, AskedStop)  # noqa: N806 - they are types

    def stop_all(request: Request, user: User, asked: Body) -> Response:
        if not guard.may_all(request, user):
            raise HTTPException(status.HTTP_403_FORBIDDEN, "the stop switch is for who may change all DAGs")
        person = guard.name(user)
        done = _decided(lambda: control.stop_all(access.ledger, person, asked.reason, on=asked.on))
        return _answer(access, "stop-all", person, asked, done, {"stop_switch": access.ledger.stopped()})

    return stop_all


def _releasing(guard: Guard, access: LedgerAccess) -> Callable[..., Response]:
    User, Body = _user(guard), _body(guard, Asked)  # noqa: N806 - they are types

    def release(request: Request, user: User, target: str, asked: Body) -> Response:
        rollout = control_targets.kept_by(access.ledger, target)
        row = access.ledger.rollout(rollout) if rollout else None
        if row is None:
            # Said to whoever is logged in: it tells nothing of any DAG.
            raise HTTPException(status.HTTP_404_NOT_FOUND, f"{target} is not kept: nothing is there to release")
        if not guard.may(request, user, dags_to_change(row, "release"), Access.CONTROL):
            raise HTTPException(status.HTTP_403_FORBIDDEN, "you may not change the runs of the DAG that keeps it")
        person = guard.name(user)
        done = _decided(lambda: control_targets.release(access.ledger, target, person, asked.reason))
        document = {"rollout": overview_line(done.row or row, access.ledger.targets(row.id)), "run": None}
        return _answer(access, "release", person, asked, done, document)

    return release


def _releasing_incident(guard: Guard, access: LedgerAccess) -> Callable[..., Response]:
    User, Body = _user(guard), _body(guard, Asked)  # noqa: N806 - they are types

    def release(request: Request, user: User, incident: str, asked: Body) -> Response:
        found = incidents.incident(access.ledger, incident)
        row = access.ledger.rollout(found.rollout) if found else None
        if found is None or row is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND, "the ledger has no such incident")
        if not guard.may(request, user, dags_to_change(row, "release-incident"), Access.CONTROL):
            raise HTTPException(status.HTTP_403_FORBIDDEN, "you may not change the runs of the locked policy's DAG")
        person = guard.name(user)
        done = _decided(lambda: incidents.release(access.ledger, incident, person, asked.reason))
        document = {"rollout": overview_line(done.row or row, access.ledger.targets(row.id)), "run": None}
        return _answer(access, "release-incident", person, asked, done, document)

    return release


ACTS: dict[str, tuple[Any, type[Asked]]] = {
    "hold": (control.hold, Asked),
    "resume": (control.resume, Asked),
    "promote": (control.promote, AskedPromotion),
    "abort": (control.abort, AskedAbort),
    "undo": (control.undo, AskedUndo),
    "skip": (control_targets.skip, AskedSkip),
    "retry": (control_targets.retry, AskedRetry),
}


def _known_target(access: LedgerAccess, rollout: str, target: str | None) -> None:
    if target is not None and access.ledger.target(rollout, target) is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "this rollout has no such target")


def run_to_trigger(row: RolloutRow, reason: str) -> dict[str, JsonValue]:
    """Say which run goes on with a rollout; the caller triggers it, so that Airflow knows and authorises who did."""
    conf: dict[str, JsonValue] = {"reason": reason[:LONGEST_RUN_REASON]}
    if row.emergency:
        return {"dag_id": EMERGENCY_DAG, "conf": {**conf, "policy": row.policy}}
    return {"dag_id": f"patch__{row.policy}", "conf": conf}


def _user(guard: Guard) -> Any:
    return Annotated[Any, Depends(guard.authenticate)]


def _body(guard: Guard, model: type[Asked]) -> Any:
    """Read the body only after the login, so that nobody learns anything before it."""
    User = _user(guard)  # noqa: N806 - it is a type

    async def read(request: Request, _user: User) -> Asked:
        if request.headers.get("sec-fetch-site", "none") not in OWN_SITE:
            raise HTTPException(status.HTTP_403_FORBIDDEN, "this request comes from another site")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise HTTPException(status.HTTP_415_UNSUPPORTED_MEDIA_TYPE, "send the reason as JSON (application/json)")
        sent = b""
        async for part in request.stream():
            sent += part
            if len(sent) > MOST_BYTES:
                raise HTTPException(413, f"the body is larger than {MOST_BYTES} bytes")
        try:
            return model.model_validate_json(sent)
        except ValidationError as error:
            said = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors())
            raise HTTPException(422, f'{said}; expected {{"reason": "why"}}') from error

    return Annotated[model, Depends(read)]


def _decided(act: Callable[[], control.Done]) -> control.Done:
    """Do it; what the table or another person's decision refuses is 409 with the reason in words."""
    try:
        return act()
    except (TransitionRefused, LedgerConflict) as refusal:
        raise HTTPException(status.HTTP_409_CONFLICT, str(refusal)) from refusal


def _answer(
    access: LedgerAccess, name: str, person: str, asked: Asked, done: control.Done, more: dict[str, JsonValue]
) -> Response:
    document = {
        "schema_version": 1,
        "as_of": access.ledger.now().isoformat(),
        "done": name,
        "by": person,
        "reason": asked.reason,
        "sentence": done.sentence,
        **more,
    }
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    content = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    return Response(content, media_type="application/json", headers=headers)
