"""Budgets: which rule stops launching, with which numbers, and whether it may undo (S4)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.change import Outcome
from patching.ledger.base import OutcomeCount
from patching.ledger.entry import EntryKind
from patching.policy import SequentialTest, StopWhen
from patching.rollout.answers import GateState, VerdictName
from patching.rollout.budgets import spent
from patching.rollout.causes import LOST_IN_REBOOT, MEANINGS, Cause, cause_of, step_signature
from patching.rollout.control import promote, resume
from patching.rollout.sequential import Decision, look
from unit.rollout.fleet import Fleet

F, A, U, D, O = Outcome.FAILED, Outcome.APPLIED, Outcome.UNKNOWN, Outcome.DRIFTED, Outcome.OFFLINE  # noqa: E741
NONE: dict[str, Any] = {"failed_targets": None, "same_cause": None, "drifted_percent": None, "sequential": None}


def group(targets: int, outcome: Outcome | None, signature: str | None = None, wave: int = 2) -> OutcomeCount:
    return OutcomeCount(wave=wave, outcome=outcome, signature=signature, targets=targets)


CASES: list[tuple[str, dict[str, Any], list[OutcomeCount], str | None, bool]] = [
    ("one failure is within the default budget", {}, [group(1, F, "a"), group(30, A)], None, False),
    ("two scattered ones are not", {}, [group(1, F, "a"), group(1, F, "b"), group(99, A)], "failedTargets", True),
    ("two of one cause say which", {}, [group(2, F, "apply:install:exit 100")], "sameCause", True),
    ("scattered failures go on where only the same cause is limited",
     {**NONE, "same_cause": 2}, [group(1, F, str(number)) for number in range(9)], None, False),
    ("a failure without a signature has no cause to share", {**NONE, "same_cause": 2}, [group(9, F)], None, False),
    ("the same cause in two waves is one cause",
     {**NONE, "same_cause": 2}, [group(1, F, "a", wave=1), group(1, F, "a")], "sameCause", True),
    ("a share counts from the fifth finished target on",
     {**NONE, "failed_percent": "10%"}, [group(2, F), group(2, A)], None, False),
    ("a share is of those finished",
     {**NONE, "failed_percent": "10%"}, [group(1, F), group(6, A), group(90, None)], "failedPercent", True),
    ("the fleet's limit is twice the wave's", {**NONE, "failed_targets": 2},
     [group(1, F, "a", wave=number) for number in range(4)], "fleet.failedTargets", True),
    ("the fleet's own limit", {**NONE, "fleet": {"failed_targets": 3}},
     [group(1, F, "a", wave=1), group(1, F, "b"), group(1, F, "c", wave=3)], "fleet.failedTargets", True),
    ("the fleet's share", {**NONE, "fleet": {"failed_percent": "5%"}},
     [group(18, A, wave=1), group(2, F, wave=1), group(1, A)], "fleet.failedPercent", True),
    ("failures come too early for the acceptable rate",
     {**NONE, "sequential": SequentialTest()}, [group(2, F, "a"), group(7, A)], "sequential", True),
    ("as many failures of more targets do not",
     {**NONE, "sequential": SequentialTest()}, [group(2, F, "a"), group(9, A)], None, False),
    ("one unknown target holds", {}, [group(1, U, "unknown"), group(50, A)], "unknownTargets", False),
    ("unknown targets are no failures", {"unknown_targets": 9}, [group(4, U, "unknown")], None, False),
    ("a target lost in its reboot has a rule of its own", {}, [group(1, U, LOST_IN_REBOOT)], None, False),
    ("drifted targets are no failures", {}, [group(3, D, "drift")], None, False),
    ("too many drifted ones hold", {}, [group(2, D, "drift"), group(6, A)], "driftedPercent", False),
    ("offline targets are no failures", {}, [group(8, O, "offline")], None, False),
    ("offline is a share of the wave", {"offline_percent": "20%"}, [group(3, O), group(9, None)],
     "offlinePercent", False),
    ("a download that fails everywhere accuses no patch", {}, [group(2, F, "network:prepare:download:exit 44")],
     "sameCause", False),
    ("a check that fails among network errors accuses", {},
     [group(1, F, "network:prepare:download:exit 44"), group(1, F, "probe:web")], "failedTargets", True),
    ("of two causes the one that accuses is said", {}, [group(5, F, "hook:drain"), group(2, F, "probe:web")],
     "sameCause", True),
    ("failures of an earlier wave do not fill this one's budget", {**NONE, "failed_targets": 2},
     [group(1, F, "a", wave=1), group(1, F, "b")], None, False),
]  # fmt: skip


@pytest.mark.parametrize(("says", "rules", "groups", "rule", "accuses"), CASES, ids=[case[0] for case in CASES])
def test_which_rule_stops(
    says: str, rules: dict[str, Any], groups: list[OutcomeCount], rule: str | None, accuses: bool
) -> None:
    stop = spent(StopWhen(**rules), 2, groups)
    assert (stop.rule if stop else None, bool(stop and stop.accuses)) == (rule, accuses)


def test_stop_says_its_numbers() -> None:
    stop = spent(StopWhen(), 2, [group(2, F, "probe:web"), group(5, A)])
    assert stop is not None
    assert stop.sentence == "2 failed in the same way (probe:web), the limit is 2"
    assert stop.numbers == {"failed": 2, "cause": "probe:web", "limit": 2}


def test_failures_of_a_wave_that_a_person_promoted_count_in_no_later_one() -> None:
    groups = [group(4, F, "a", wave=1), group(1, F, "a")]
    assert spent(StopWhen(), 2, groups) is not None
    assert spent(StopWhen(), 2, groups, answered={1}) is None
    assert spent(StopWhen(), 1, groups, answered={1}) is not None


OUTCOMES = st.sampled_from([None, A, F, U, D, O, Outcome.NOTHING_TO_DO])
GROUPS = st.lists(
    st.builds(
        group, st.integers(1, 30), OUTCOMES, st.sampled_from([None, "a", "probe:x", "offline"]), st.integers(1, 3)
    ),
    max_size=8,
)


@given(GROUPS)
def test_only_failures_ever_accuse(groups: list[OutcomeCount]) -> None:
    stop = spent(StopWhen(offline_percent="1%"), 2, groups)
    if stop is not None and stop.accuses:
        assert any(item.outcome is F for item in groups)


@given(GROUPS, st.integers(1, 5))
def test_one_more_failure_never_lets_launching_go_on(groups: list[OutcomeCount], more: int) -> None:
    if spent(StopWhen(), 2, groups) is not None:
        assert spent(StopWhen(), 2, [*groups, group(more, F, "probe:x")]) is not None


@given(st.integers(0, 60), st.integers(0, 5))
def test_engine_and_test_agree_on_every_count(applied: int, failed: int) -> None:
    stop = spent(StopWhen(**{**NONE, "sequential": SequentialTest()}), 2, [group(applied, A), group(failed, F, "a")])
    says = failed > 0 and look(SequentialTest(), applied + failed, failed).decision is Decision.STOP
    assert (stop is not None) == says


CAUSES = [
    ("offline", Cause.OFFLINE), ("unknown", Cause.CONNECTION), (LOST_IN_REBOOT, Cause.REBOOT),
    ("reboot:none", Cause.PACKAGE), ("LoginRefused", Cause.LOGIN), ("HostKeyChanged", Cause.LOGIN),
    ("hook:drain", Cause.HOOK), ("probe:web", Cause.CHECK), ("apply:install:overdue", Cause.OVERDUE),
    ("apply:install:exit 100: dpkg: error", Cause.PACKAGE), ("apt:half:shop", Cause.PACKAGE), (None, Cause.PACKAGE),
    ("apply:install:exit 100: connection timed out", Cause.PACKAGE),
]  # fmt: skip


@pytest.mark.parametrize(("signature", "cause"), CAUSES, ids=[str(item[0]) for item in CAUSES])
def test_cause_is_read_from_the_signature(signature: str | None, cause: Cause) -> None:
    assert cause_of(signature) is cause


PRINTED = [
    ("E: Failed to fetch http://deb/x.deb  Could not connect to 127.0.0.9:80 (111: Connection refused)", "network"),
    ("Temporary failure resolving 'deb.debian.org'", "network"),
    ("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 41", "lock"),
    ("cp: error writing 'x.deb': No space left on device", "space"),
    ("shop=1.1 is in no index any more and not in our store: plan anew", "package"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "cause"), PRINTED, ids=[item[1] for item in PRINTED])
def test_what_a_download_printed_tells_its_cause(text: str, cause: str) -> None:
    signature = step_signature("prepare", "download", "exit 44", text, "plan anew")
    assert cause_of(signature).value == cause


def test_network_words_of_an_install_make_it_no_network_error() -> None:
    """A postinst that could not connect has changed the target: it is not run again because of its words."""
    signature = step_signature("apply", "install", "exit 100", "Connection refused", "dpkg: error processing shop")
    assert cause_of(signature) is Cause.PACKAGE
    assert not MEANINGS[Cause.PACKAGE].again


def test_same_failure_on_two_targets_has_one_signature() -> None:
    one = step_signature(
        "apply", "install", "exit 100", "", "dpkg: error in /var/lib/dpkg/info/shop.postinst line 12 on web-03"
    )
    two = step_signature(
        "apply", "install", "exit 100", "", "dpkg: error in /usr/lib/dpkg/info/shop.postinst line 7 on web-11"
    )
    assert one == two == "apply:install:exit 100: dpkg: error in # line # on web-#"


def one_at_a_time(fleet: Fleet) -> None:
    fleet.site = replace(fleet.site, concurrency=1)


def of_wave(fleet: Fleet, wave: int) -> list[str]:
    return list(fleet.frozen.waves[wave - 1].targets)


async def test_stop_launches_nothing_new_and_the_verdict_has_the_rule_and_its_numbers(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, hosts=9, verify=[])
    one_at_a_time(fleet)
    await fleet.begin()
    await fleet.wave(1)
    for name in of_wave(fleet, 2) + of_wave(fleet, 3):
        fleet.hosts.change(name, fail=100)
    assert await fleet.wave(2) is VerdictName.UNDO
    verdict = fleet.ledger.find(fleet.rollout, "verdict:2")
    assert verdict is not None
    assert verdict.body["stop"]["rule"] == "sameCause"
    assert verdict.body["stop"]["numbers"]["failed"] == 2
    applied = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.WAVE_APPLIED])[-1]
    assert applied.body["stop"]["rule"] == "sameCause"
    assert sum(bool(fleet.hosts.markers(name)) for name in of_wave(fleet, 2)) == 2
    assert not any(fleet.hosts.markers(name) for name in of_wave(fleet, 3))
    assert "failed in the same way" in (await fleet.finish()).markdown


async def test_unknown_target_holds_the_wave_undoes_nothing_and_is_settled_before_anything_new_begins(
    tmp_path: Path,
) -> None:
    fleet = Fleet(tmp_path, hosts=6, verify=[], onFailure={"retry": {"times": 0}})
    one_at_a_time(fleet)
    await fleet.begin()
    await fleet.wave(1)
    await fleet.gate(2)
    first = of_wave(fleet, 2)[0]
    fleet.going_dark(first)
    await fleet.apply(2)
    fleet.as_before()
    assert fleet.outcomes()[first] == "unknown"
    assert not any(fleet.hosts.markers(name) for name in of_wave(fleet, 2)[1:])
    assert (await fleet.judge(2)).verdict is VerdictName.HOLD
    assert (await fleet.undo(2)).skipped
    assert fleet.state == "held"
    assert (await fleet.gate(3)).state is GateState.REFUSED
    fleet.hosts.change(first, offline=False)
    resume(fleet.ledger, fleet.rollout, "alice", "the host is back")
    fleet.new_run("run-2")
    await fleet.discover()
    assert await fleet.wave(2) is VerdictName.PROMOTE
    assert await fleet.wave(3) is VerdictName.PROMOTE
    assert set(fleet.versions().values()) == {"1.1"}
    assert not fleet.twice()


async def test_unknown_target_that_stays_dark_lets_nothing_new_begin_in_the_resumed_run(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, hosts=6, verify=[], onFailure={"retry": {"times": 0}})
    one_at_a_time(fleet)
    await fleet.begin()
    await fleet.wave(1)
    await fleet.gate(2)
    fleet.going_dark(of_wave(fleet, 2)[0])
    await fleet.apply(2)
    fleet.as_before()
    await fleet.judge(2)
    resume(fleet.ledger, fleet.rollout, "alice", "it may be back")
    fleet.new_run("run-2")
    await fleet.discover()
    assert await fleet.wave(2) is VerdictName.HOLD
    assert not any(fleet.hosts.markers(name) for name in of_wave(fleet, 2)[1:] + of_wave(fleet, 3))


async def test_drifted_hosts_hold_a_finished_wave_and_undo_nothing_and_a_person_promotes_it(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, hosts=12, verify=[])
    await fleet.begin()
    await fleet.wave(1)
    for name in of_wave(fleet, 2)[:3]:
        fleet.hosts.change(name, installed={"shop": "0.9"})
    assert await fleet.wave(2) is VerdictName.HOLD
    assert "undone" not in fleet.outcomes().values()
    promote(fleet.ledger, fleet.rollout, "alice", "somebody upgraded these by hand", wave=2)
    fleet.new_run("run-2")
    await fleet.discover()
    assert await fleet.wave(3) is VerdictName.PROMOTE
