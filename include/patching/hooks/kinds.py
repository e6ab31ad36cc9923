"""Which kind of hook a policy's entry is, and which of them are entered and not left, as the ledger shows it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from patching.change import Phase, Step
from patching.channels.base import Attach
from patching.channels.service import SERVICES
from patching.hooks.alertmanager import AlertmanagerKind
from patching.hooks.base import HookKind
from patching.hooks.command import CommandKind
from patching.hooks.haproxy import HaproxyKind
from patching.hooks.http import HttpKind
from patching.ledger.entry import EntryKind, LedgerEntry
from patching.policy_hooks import Hook

NEVER_BEGAN = frozenset({Attach.ABSENT.value, Attach.FORBIDDEN.value})


def kind_of(hook: Hook) -> HookKind:
    """Give the kind of a hook."""
    if hook.command is not None:
        return CommandKind()
    if hook.http is not None:
        return HttpKind()
    return HaproxyKind() if hook.drain is not None else AlertmanagerKind()


@dataclass(frozen=True)
class Entered:
    """A hook that was entered, or may have been, and was not left.

    ``step`` is its first attempt, which knows how things were before any of ours; ``ok``: the last attempt ended
    well; ``leaving``: leaving was tried since.
    """

    step: Step
    attempts: int = 1
    ok: bool = False
    leaving: bool = False

    @property
    def sure(self) -> bool:
        """Whether it certainly stands."""
        return self.ok and not self.leaving


def standing(entries: Sequence[LedgerEntry]) -> dict[str, Entered]:
    """Give what one target's intents and step outcomes leave entered, by step name, in the order of entering.

    An attempt counts as soon as its intent is written, unless the target itself says that it never began: a service
    cannot say so.
    """
    found: dict[str, Entered] = {}
    steps: dict[str, Step] = {}
    for entry in entries:
        if entry.kind is EntryKind.INTENT and entry.step is not None:
            steps[entry.step] = Step.model_validate(entry.body["step"])
            _begun(found, steps[entry.step])
        elif entry.kind is EntryKind.STEP_OUTCOME and entry.step in steps:
            _ended(found, steps[entry.step], ok=bool(entry.body.get("ok")), attach=str(entry.body.get("attach")))
    return found


def _begun(found: dict[str, Entered], step: Step) -> None:
    known = found.get(step.name)
    if step.phase is Phase.ENTER:
        again = replace(known, attempts=known.attempts + 1, ok=False, leaving=False) if known else Entered(step)
        found[step.name] = again
    elif step.phase is Phase.LEAVE and known is not None:
        found[step.name] = replace(known, leaving=True)


def _ended(found: dict[str, Entered], step: Step, *, ok: bool, attach: str) -> None:
    known = found.get(step.name)
    if known is None:
        return
    if step.phase is Phase.LEAVE and ok:
        del found[step.name]
    elif step.phase is Phase.ENTER and attach in NEVER_BEGAN and step.channel not in SERVICES:
        if known.attempts == 1:
            del found[step.name]
        else:
            found[step.name] = replace(known, attempts=known.attempts - 1)
    elif step.phase is Phase.ENTER:
        found[step.name] = replace(known, ok=ok)
