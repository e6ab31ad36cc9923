"""``patching hold|resume|promote|abort|undo|skip|retry|release|stop-all``: a person's decisions, by Airflow's API."""

from __future__ import annotations

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from patching.cli.airflow_api import AirflowApi, AirflowApiError
from patching.cli.following import AsJson, Url, say, trigger_dag
from patching.errors import PatchingError

OK = 0
REFUSED = (403, 404, 409, 422)

RolloutId = Annotated[str, typer.Argument(help="Id of the rollout, as `patching status` lists it.", metavar="ROLLOUT")]
Why = Annotated[str, typer.Option("--reason", help="Why; it is kept in the ledger with your name.", metavar="WHY")]
Run = Annotated[bool, typer.Option("--run/--no-run", help="Start the run that does it, or leave it to the next one.")]
Wave = Annotated[int | None, typer.Option(help="Refuse any other wave than this one.", min=1)]
Now = Annotated[bool, typer.Option("--now", help="Also cancel what only reads or downloads.")]
Others = Annotated[bool, typer.Option("--others", help="Undo the rest where some targets cannot be undone.")]
Restored = Annotated[
    list[str] | None,
    typer.Option(help="A target that you have restored; it is looked at before it counts. Repeatable.", metavar="NAME"),
]
Failed = Annotated[bool, typer.Option("--failed", help="Every target that failed, was offline, or is unknown.")]
TargetName = Annotated[str, typer.Argument(help="Name of a target, as the rollout lists it.", metavar="TARGET")]
MaybeTarget = Annotated[str, typer.Argument(help="Name of one target.", metavar="[TARGET]")]
Off = Annotated[bool, typer.Option("--off", help="Allow everything again.")]

Document = dict[str, Any]


def hold(rollout: RolloutId, reason: Why, as_json: AsJson = False, url: Url = "") -> int:
    """Hold a rollout that runs or waits: nothing new begins, what is at work on a target ends there.

    Exit code 0: it is held. 1: refused, and the message says what is allowed.
    """
    return _act("hold", rollout, {"reason": reason}, url, as_json)


def resume(rollout: RolloutId, reason: Why, run: Run = True, as_json: AsJson = False, url: Url = "") -> int:
    """Let a held rollout go on where it stopped, and start the run that does it.

    Refused where a verdict holds a wave: `patching promote` passes that, in your name.
    Exit code 0: it goes on. 1: refused, or no run could be started.
    """
    return _act("resume", rollout, {"reason": reason}, url, as_json, run=run)


def promote(
    rollout: RolloutId, reason: Why, wave: Wave = None, run: Run = True, as_json: AsJson = False, url: Url = ""
) -> int:
    """Promote the one wave that a verdict of hold or inconclusive holds, in your name, and start the run that goes on.

    Later waves keep their own gates and verdicts. The judge's verdict stays in the ledger beside yours.
    Exit code 0: it is promoted. 1: refused, or no run could be started.
    """
    body = {"reason": reason} if wave is None else {"reason": reason, "wave": wave}
    return _act("promote", rollout, body, url, as_json, run=run)


def abort(rollout: RolloutId, reason: Why, now: Now = False, as_json: AsJson = False, url: Url = "") -> int:
    """End a rollout: nothing new begins, what is at work on a target ends there, what is changed stays changed.

    With --now jobs that only read or download are cancelled within seconds. One that installs, restarts or reboots is
    never cancelled: its job goes to its end, and the answer names it.
    Exit code 0: it is aborted. 1: refused, and the message says what is allowed.
    """
    return _act("abort", rollout, {"reason": reason, "now": now}, url, as_json)


def skip(rollout: RolloutId, target: TargetName, reason: Why, as_json: AsJson = False, url: Url = "") -> int:
    """Leave a target that has not begun out of an open rollout, for good; it stays as it is.

    Exit code 0: it is skipped. 1: refused: it has begun or ended, or is not in the plan.
    """
    return _act("skip", rollout, {"reason": reason, "target": target}, url, as_json)


def retry(
    rollout: RolloutId,
    reason: Why,
    target: MaybeTarget = "",
    failed: Failed = False,
    run: Run = True,
    as_json: AsJson = False,
    url: Url = "",
) -> int:
    """Try one target, or with --failed all that failed, once more in the same rollout, from the step that failed.

    Steps that are done are not done again; a wave that was judged is judged anew. A rollout that a verdict held for it
    goes on, and its run is started; one that a person held stays held.
    Exit code 0: it is tried again. 1: refused, with what stands against each target, or no run could be started.
    """
    if bool(target) == failed:
        raise typer.BadParameter("name one TARGET, or give --failed for all of them", param_hint="TARGET, --failed")
    body: Document = {"reason": reason, "target": target} if target else {"reason": reason}
    return _act("retry", rollout, body, url, as_json, run=run)


def release(target: TargetName, reason: Why, as_json: AsJson = False, url: Url = "") -> int:
    """Release a target that you have looked at: first the place that an unknown end keeps, then its quarantine.

    A target whose place is released goes into quarantine; release it once more when it may be patched again.
    Exit code 0: it is released. 1: refused: nothing keeps it.
    """
    with AirflowApi.from_environment(url) as api:
        done = post(api, f"targets/{quote(target, safe='')}/release", {"reason": reason})
    show_done(done, as_json)
    return OK


def undo(
    rollout: RolloutId,
    reason: Why,
    others: Others = False,
    restored: Restored = None,
    run: Run = True,
    as_json: AsJson = False,
    url: Url = "",
) -> int:
    """Put back what a held, aborted or completed rollout changed, and start the run that does it.

    Refused where changed targets cannot be undone and nothing proves the contrary, unless --others or --restored.

    Exit code 0: the undo is ordered; `patching status ROLLOUT` tells how it goes. 1: refused, or no run was started.
    """
    body = {"reason": reason, "others": others, "restored": restored or []}
    return _act("undo", rollout, body, url, as_json, run=run)


def stop_all(reason: Why, off: Off = False, as_json: AsJson = False, url: Url = "") -> int:
    """Stop everything, everywhere, before its next step; with --off allow it again.

    Steps that run on a target end there; undo goes on. It is for who may change all DAGs.
    Exit code 0: it is turned. 1: refused.
    """
    with AirflowApi.from_environment(url) as api:
        done = post(api, "stop-all", {"reason": reason, "on": not off})
    show_done(done, as_json)
    return OK


def _act(act: str, rollout: str, body: Document, url: str, as_json: bool, *, run: bool = False) -> int:
    with AirflowApi.from_environment(url) as api:
        done = post(api, f"rollouts/{quote(rollout, safe='')}/{act}", body)
        started = _start(api, done) if run and done["run"] else None
    show_done({**done, "started": started}, as_json)
    return OK


def post(api: AirflowApi, path: str, body: Document) -> Document:
    """Send it; raises PatchingError with the server's words where it was refused."""
    try:
        return dict(api.post(f"/patching/api/{path}", body))
    except AirflowApiError as error:
        if error.status not in REFUSED:
            raise
        raise PatchingError(f"refused, nothing was done: {error.detail}") from error


def _start(api: AirflowApi, done: Document) -> Document:
    """Start the run that goes on; raises PatchingError that says that the decision stands where it cannot begin."""
    wanted = done["run"]
    try:
        dag_id, run_id = trigger_dag(api, wanted["dag_id"], done["rollout"]["policy"], wanted["conf"])
    except PatchingError as error:
        raise PatchingError(f"{done['sentence']}; that stands, but no run was started: {error}") from error
    say(f"run {run_id} of {dag_id} is started: {api.url}/dags/{dag_id}/runs/{run_id}")
    return {"dag_id": dag_id, "run_id": run_id}


def show_done(done: Document, as_json: bool) -> None:
    """Print what was done, as its sentence or as JSON."""
    print(json.dumps(done, indent=2, ensure_ascii=False) if as_json else done["sentence"])
