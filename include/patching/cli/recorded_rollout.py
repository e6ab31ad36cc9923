"""A rollout's own evidence, as the ledger keeps it, judged again by a policy; reads the ledger's database directly."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from patching.canary.blocks import judge_block
from patching.canary.dependent import dependent_check, service_of
from patching.canary.judge import judge_wave
from patching.canary.kept import from_json, judge_metric
from patching.canary.recorded import RecordingUnreadable
from patching.canary.verdicts import CheckVerdict, WaveVerdict
from patching.canary.weights import replayed_looks, share_of
from patching.cli.ledger import open_named
from patching.ledger.entry import EntryKind
from patching.ledger.store import SqlLedger
from patching.policy import Check, Policy
from patching.value import JsonValue


@dataclass(frozen=True)
class Kept:
    """What one check looked at, and in which block where the guard stopped its wave; None at the end of a soak."""

    looks: Mapping[str, JsonValue]
    block: int | None


Evidence = dict[int, dict[str, Kept]]


def rejudged(policy: Policy, rollout: str, url: str) -> dict[int, WaveVerdict]:
    """Judge every measured wave of a rollout again by a policy's metric checks.

    Raises RecordingUnreadable where the ledger has no such evidence, LedgerError where it cannot be read.
    """
    evidence = _evidence(open_named(url), rollout)
    checks = [check for check in policy.spec.verify if check.metric is not None]
    own = {check.name for check in checks}
    hosts = {
        wave: {name for check, one in kept.items() if check in own for name in one.looks["canary"]["targets"]}
        for wave, kept in evidence.items()
    }
    felt = {wave: [one for check in checks for one in _dependents(check, kept, own)] for wave, kept in evidence.items()}
    services = sum(len(found) for found in felt.values()) // max(len(checks), 1)
    looks = replayed_looks(policy, [len(names) for names in hosts.values()], services)
    verdicts = {}
    for wave, kept in sorted(evidence.items()):
        asked = [*checks, *felt[wave]]
        answers = [_again(check, kept.get(check.name), share_of(check, checks, looks)) for check in asked]
        verdicts[wave] = judge_wave(answers, [], asked, sorted(hosts[wave]))
    return verdicts


def _dependents(check: Check, kept: Collection[str], own: Collection[str]) -> list[Check]:
    """Make the checks of the services that were measured because they depend on what the wave changed."""
    services = [service_of(name, check) for name in kept if name not in own]
    return [dependent_check(check, service) for service in services if service is not None]


def _again(check: Check, kept: Kept | None, share: float) -> CheckVerdict:
    """Judge as it was judged: a block of the guard as a block, with its part of the share."""
    if kept is None:
        return CheckVerdict.unavailable(check, "the rollout did not measure it")
    measured = from_json(kept.looks)
    if kept.block is not None:
        return judge_block(check, measured, share, kept.block)
    return judge_metric(check, measured, share)


def _evidence(ledger: SqlLedger, rollout: str) -> Evidence:
    """Give what each wave's checks looked at, the newest measurement of each: wave → check → kept JSON."""
    found: Evidence = {}
    measured = ledger.entries(rollout, kinds=[EntryKind.MEASURED])
    for entry in measured:
        document = ledger.document(entry.body["data"])
        looks, block = document.get("looks"), document.get("block")
        if looks is not None:
            kept = Kept(looks, None if block is None else int(block))
            found.setdefault(int(entry.body["wave"]), {})[str(entry.body["check"])] = kept
    if not found:
        why = "it was measured before evidence was kept look by look" if measured else "it measured nothing"
        raise RecordingUnreadable(f'the ledger has no series of rollout "{rollout}": {why}')
    return found
