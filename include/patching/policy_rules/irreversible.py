"""Rules about irreversible patches: each has a backup hook and a drill, or says why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from patching.policy import IrreversibleRule, Spec
from patching.policy_rules.finding import Wrong


def breaches(spec: Spec) -> Iterator[Wrong]:
    """Check ``patches.irreversible`` with the hooks and the drill that it needs, and every backup hook."""
    for index, rule in enumerate(spec.patches.irreversible):
        at = ("spec", "patches", "irreversible", index)
        if not rule.match:
            yield Wrong((*at, "match"), '"match" is empty, so nothing is declared; name components', "empty-list")
        if not rule.reason.strip():
            yield Wrong((*at, "reason"), "somebody will have to decide by this reason; say it", "irreversible-reason")
        for key, said in (("withoutBackup", rule.accept.without_backup), ("withoutDrill", rule.accept.without_drill)):
            if said is not None and not said.strip():
                message = "what is passed on purpose needs the reason of whoever answers for it"
                yield Wrong((*at, "accept", key), message, "irreversible-reason")
        for gate, remedy in lacking(spec, [rule]).items():
            message = f'{remedy}; or say why it is right without, in "accept: {{{gate}: …}}"'
            yield Wrong((*at, "match"), message, "irreversible-gate")
    yield from _backups(spec)


def _backups(spec: Spec) -> Iterator[Wrong]:
    for index, hook in enumerate(spec.hooks):
        if not hook.backup:
            continue
        at = ("spec", "hooks", index)
        if hook.named is None or (hook.http is not None and hook.http.enter is None):
            message = 'a backup is made before the change: by a "command", or by an "http" hook that has "enter"'
            yield Wrong((*at, "backup"), message, "hook-backup", key=True)
        elif not hook.must:
            kind = "command" if hook.command is not None else "http"
            message = "a backup that may fail is none: nothing may be applied after it failed; write onError: fail"
            yield Wrong((*at, kind, "onError"), message, "hook-backup")


def lacking(spec: Spec, rules: Sequence[IrreversibleRule]) -> dict[str, str]:
    """Say which gates of irreversible patches the policy does not have, and that none of the ``rules`` accepts.

    Keys are ``withoutBackup`` and ``withoutDrill``, values say what to do.
    """
    found = {}
    if not any(hook.backup for hook in spec.hooks) and not any(rule.accept.without_backup for rule in rules):
        found["withoutBackup"] = "no hook is a backup: mark the one that makes it with backup: true"
    if not spec.rollout.drill and not any(rule.accept.without_drill for rule in rules):
        found["withoutDrill"] = "nothing tries the undo first: set rollout.drill: true"
    return found
