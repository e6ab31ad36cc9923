"""``patching status``: the rollouts, or one of them, and what each one waits for; it only reads."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import quote

import typer

from patching.cli.airflow_api import AirflowApi, AirflowApiError
from patching.cli.following import AsJson, Url
from patching.errors import PatchingError
from patching.report.status_text import changes_text, rollout_text, rollouts_text

PAUSE = 2.0
PATIENCE = 300.0
OK, FAILED, PENDING = 0, 1, 3
NO_ROLLOUT = "the ledger has no rollout"
BAD = ("aborted", "expired", "undone", "undoing")
PENDING_STATES = ("held", "awaiting_approval")

Document = dict[str, Any]
MaybeRollout = Annotated[str, typer.Argument(help="Id of a rollout; without it all are listed.", metavar="[ROLLOUT]")]
Everything = Annotated[bool, typer.Option("--all", help="List the newest 100, not only the open ones.")]
Policy = Annotated[str, typer.Option(help="List only this policy's.", metavar="NAME")]
Watch = Annotated[bool, typer.Option("--watch", help="Go on telling what changes, until the rollout has ended.")]
ExitCode = Annotated[bool, typer.Option("--exit-code", help="Exit with 1 or 3 according to the rollout's state.")]


def status(
    rollout: MaybeRollout = "",
    every: Everything = False,
    policy: Policy = "",
    watch: Watch = False,
    exit_code: ExitCode = False,
    as_json: AsJson = False,
    url: Url = "",
) -> int:
    """Show open rollouts, or one rollout, and what each one waits for; changes nothing.

    With --watch and --json, one document a line whenever something has changed.
    Airflow's address and user come from PATCHING_URL and PATCHING_USER, PATCHING_PASSWORD (or PATCHING_TOKEN).
    Exit code 0: it is shown. 1: there is no such rollout, or you may not read it. With ROLLOUT and --exit-code also
    1: undone, aborted or expired, and 3: held, or waits for approval.
    """
    if not rollout and (watch or exit_code):
        raise typer.BadParameter("needs a ROLLOUT", param_hint="--watch" if watch else "--exit-code")
    if rollout and (every or policy):
        raise typer.BadParameter("lists rollouts, so it goes without a ROLLOUT", param_hint="--all, --policy")
    with AirflowApi.from_environment(url) as api:
        if not rollout:
            listed = _listed(api, policy, every)
            print(json.dumps(listed, indent=2, ensure_ascii=False) if as_json else rollouts_text(listed, every=every))
            return OK
        found = _watched(api, rollout, as_json) if watch else _one(api, rollout)
    if not watch:
        print(json.dumps(found, indent=2, ensure_ascii=False) if as_json else rollout_text(found))
    return code_of(str(found["rollout"]["state"])) if exit_code else OK


def code_of(state: str) -> int:
    """Give the exit code of a rollout's state: 1 for a bad end, 3 where a person must decide, else 0."""
    if state in BAD:
        return FAILED
    return PENDING if state in PENDING_STATES else OK


@contextmanager
def reading(missing: str) -> Iterator[None]:
    """Say in the user's words that nothing was found; raises PatchingError for a 404 and lets all else through."""
    try:
        yield
    except AirflowApiError as error:
        if error.status != 404:
            raise
        raise PatchingError(f"{missing}; `patching status --all` lists those that you may read") from error


def _listed(api: AirflowApi, policy: str, every: bool) -> Document:
    wanted = {"policy": policy.removeprefix("patch__")} if policy else {}
    return dict(api.get("/patching/api/rollouts", **wanted, **({} if every else {"open": "true"})))


def _one(api: AirflowApi, rollout: str) -> Document:
    with reading(f"{NO_ROLLOUT} {rollout}"):
        return dict(api.get(f"/patching/api/rollouts/{quote(rollout, safe='')}"))


def _watched(api: AirflowApi, rollout: str, as_json: bool) -> Document:
    """Tell a rollout and then each change until it is final; gives the last document."""
    last = _one(api, rollout)
    tell: Callable[[str], None] = lambda text: print(text, flush=True)  # noqa: E731
    tell(_line(last) if as_json else rollout_text(last))
    while not last["rollout"]["final"]:
        time.sleep(PAUSE)
        now = _patiently(api, rollout)
        if _without_moment(now) != _without_moment(last):
            text = _line(now) if as_json else changes_text(last, now)
            if text:
                tell(text)
        last = now
    return last


def _patiently(api: AirflowApi, rollout: str) -> Document:
    """Read again; an API server that restarts is waited for, at most ``PATIENCE`` seconds."""
    until, told = time.monotonic() + PATIENCE, False
    while True:
        try:
            return _one(api, rollout)
        except AirflowApiError as error:
            if not error.retryable or time.monotonic() > until:
                raise
            if not told:
                print(f"{error}; trying again", file=sys.stderr, flush=True)
                told = True
            time.sleep(PAUSE)


def _line(document: Document) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def _without_moment(document: Document) -> Document:
    return {key: value for key, value in document.items() if key != "as_of"}
