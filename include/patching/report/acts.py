"""Acts: what a person may do to a rollout and its targets as they stand, each with the one sentence of what it does.

The page makes its buttons from this; whether *this* person may is added by the API. What is listed here can still be
refused, because others act at the same time: the ledger decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from patching.change import Outcome, TargetState
from patching.ledger.base import RolloutRow, TargetRow
from patching.rollout.incidents import Incident
from patching.rollout.states import FINAL, TRANSITIONS, RolloutState
from patching.value import JsonValue

S = RolloutState
PROMOTABLE = ("hold", "inconclusive")
RETRYABLE = (Outcome.FAILED, Outcome.OFFLINE, Outcome.UNKNOWN)
GOES_ON = (S.RUNNING, S.WAITING, S.HELD)
NOT_BEGUN = (TargetState.PENDING, TargetState.WAITING)

TARGET_ACTS: dict[str, dict[str, JsonValue]] = {
    "skip": {
        "label": "Skip",
        "says": "{target} is left out of this rollout for good and stays as it is; the others go on.",
        "tone": "stop",
    },
    "retry": {
        "label": "Try again",
        "says": "{target} is tried once more from the step that failed, by a run that is started now; its wave is "
        "judged anew after it.",
        "tone": "go",
    },
    "release": {
        "label": "Release",
        "says": "{target} is yours to answer for: a place that it keeps by an unknown end becomes free and it stays in "
        "quarantine; where it keeps none, its quarantine ends and the next plan may change it.",
        "tone": "go",
    },
}


def rollout_acts(
    row: RolloutRow,
    rows: Sequence[TargetRow],
    waves: Sequence[Mapping[str, JsonValue]],
    *,
    undo_begun: bool,
    locked: Incident | None,
    stays: Mapping[str, str] = MappingProxyType({}),
) -> list[dict[str, JsonValue]]:
    """List the acts on a whole rollout that its state allows, in the order in which a person looks for them.

    ``waves`` are the wave views; ``undo_begun`` says whether it has ever been undoing; ``stays`` are the changed
    targets that cannot be undone.
    """
    stuck = next((wave for wave in waves if wave["verdict"] not in (None, "promote")), None)
    may_go_on = row.state is S.HELD and not undo_begun and locked is None
    found = [_release(locked)] if locked is not None else []
    if row.state in (S.RUNNING, S.WAITING):
        found.append(_act(row, "hold", "Hold", "Nothing new begins; what is at work on a target ends there.", "stop"))
    if may_go_on and stuck is None:
        says = "It goes on where it stopped, with a run that is started now."
        found.append(_act(row, "resume", "Resume", says, "go"))
    if may_go_on and stuck is not None and stuck["verdict"] in PROMOTABLE and stuck["ended"] == stuck["targets"]:
        found.append(_promote(row, stuck))
    failed = sum(_retryable(item) and item.wave not in judged_by_checks(waves) for item in rows)
    if row.state in GOES_ON and not undo_begun and locked is None and failed:
        found.append(_act(row, "retry", "Retry failed", _retry_says(failed), "go"))
    return [*found, *_ends(row, rows, stays)]


def judged_by_checks(waves: Sequence[Mapping[str, JsonValue]]) -> set[int]:
    """Give the waves that a verdict holds which rests on checks: a retry is no way around it."""
    return {wave["index"] for wave in waves if wave["verdict"] not in (None, "promote") and wave["checks"]}


def _ends(row: RolloutRow, rows: Sequence[TargetRow], stays: Mapping[str, str]) -> list[dict[str, JsonValue]]:
    found = []
    changed = sum(item.began_at is not None and item.undo_outcome is not Outcome.UNDONE for item in rows) - len(stays)
    if S.UNDOING in TRANSITIONS[row.state] and row.state is not S.RUNNING and changed > 0:
        says = (
            f"What it changed on {_targets(changed)} is put back, the newest change first, by a run that is started "
            "now; it does not go on afterwards."
        )
        if stays:
            says += f" {_targets(len(stays))} that cannot be undone stay as they are."
        label = "Undo the rest" if stays else "Undo"
        found.append(_act(row, "undo", label, says, "back", body={"others": True} if stays else None))
    if S.ABORTED in TRANSITIONS[row.state]:
        says = "It ends: nothing new begins, jobs at work go to their end, and what is changed stays changed."
        found.append(_act(row, "abort", "Abort", says, "stop"))
        if any(item.state is TargetState.RUNNING for item in rows):
            says = (
                "It ends: reading and downloading is cancelled within seconds, jobs that install, restart or reboot go "
                "to their end, and what is changed stays changed."
            )
            found.append(_act(row, "abort", "Abort now", says, "stop", body={"now": True}, name="abort-now"))
    return found


def stop_acts(stopped: str | None) -> list[dict[str, JsonValue]]:
    """List what may be done with the one stop switch."""
    if stopped is None:
        says = "Everything, in every rollout, stops before its next step; what runs on a target ends there."
        return [_switch("stop-all", "Stop everything", says, "stop", {"on": True})]
    says = "Steps may begin again everywhere; the next run of each policy goes on where it was stopped."
    return [_switch("allow-all", "Allow everything again", says, "go", {"on": False})]


def target_acts(row: RolloutRow, target: TargetRow, *, quarantined: bool, may_retry: bool) -> list[str]:
    """Name the acts on one target that its state allows; ``may_retry``: its rollout and wave allow another try."""
    found = []
    if row.state not in FINAL and row.state is not S.UNDOING and _not_begun(target):
        found.append("skip")
    if row.state in GOES_ON and may_retry and _retryable(target):
        found.append("retry")
    if quarantined or Outcome.UNKNOWN in (target.outcome, target.undo_outcome):
        found.append("release")
    return found


def _not_begun(target: TargetRow) -> bool:
    return target.outcome is None and target.began_at is None and target.state in NOT_BEGUN


def _retryable(target: TargetRow) -> bool:
    return target.outcome in RETRYABLE and target.undo_outcome not in RETRYABLE and target.state is TargetState.ENDED


def _retry_says(number: int) -> str:
    return (
        f"{_targets(number)} that failed or did not answer {'is' if number == 1 else 'are'} tried once more from the "
        "step that failed, by a run that is started now; their waves are judged anew."
    )


def _targets(number: int) -> str:
    return f"{number} target{'' if number == 1 else 's'}"


def _promote(row: RolloutRow, wave: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    index = wave["index"]
    says = (
        f"Wave {index} counts as promoted in your name, and a run that is started now goes on after it; later waves "
        "keep their own gates and verdicts."
    )
    return _act(row, "promote", f"Promote wave {index}", says, "go", body={"wave": index})


def _release(locked: Incident) -> dict[str, JsonValue]:
    says = f"Policy {locked.policy} may work again in your name; what is held stays held until somebody decides."
    return {
        "act": "release-incident",
        "label": "Release incident",
        "says": says,
        "tone": "go",
        "path": f"incidents/{locked.id}/release",
        "body": {},
    }


def _act(
    row: RolloutRow, path: str, label: str, says: str, tone: str, *, body: JsonValue = None, name: str = ""
) -> dict[str, JsonValue]:
    return {
        "act": name or path,
        "label": label,
        "says": says,
        "tone": tone,
        "path": f"rollouts/{row.id}/{path}",
        "body": body or {},
    }


def _switch(name: str, label: str, says: str, tone: str, body: JsonValue) -> dict[str, JsonValue]:
    return {"act": name, "label": label, "says": says, "tone": tone, "path": "stop-all", "body": body}
