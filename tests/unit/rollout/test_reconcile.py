"""What no run owns is looked after (T8, T12): settled, undone to the end, expired, given to a new run; never begun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from patching.change import Step
from patching.channels.base import Attach, Handle, Progress, Session
from patching.channels.simulated import SimulatedChannel
from patching.drivers.simulated import SimulatedOptions
from patching.errors import ConnectionMissing, LedgerUnavailable
from patching.ledger.base import Claim, Lease
from patching.ledger.entry import CONTROL, EntryKind, NewEntry
from patching.plan.document import Plan
from patching.report.sentences import waiting_for
from patching.rollout.answers import Request, VerdictName
from patching.rollout.reconcile import CANNOT, Reconciled, reconcile
from patching.rollout.settling import LAST_WAIT
from patching.rollout.states import RolloutState
from patching.target import Target
from unit.rollout.fleet import Fleet
from unit.rollout.test_crash_points import kill_at, prepared

pytestmark = pytest.mark.slow

TUESDAY_NOON = {"windows": [{"rrule": "FREQ=WEEKLY;BYDAY=TU", "start": "11:30", "duration": "4h"}]}
SCHEDULED: dict[str, object] = {"scheduled": True}


def lost(fleet: Fleet, *active: str) -> Fleet:
    """Let Airflow say which runs are at work; all others have ended."""
    fleet.site = replace(fleet.site, run_active=lambda run: run in active, owner="reconcile-1")
    return fleet


async def tick(fleet: Fleet) -> Reconciled:
    return await reconcile(fleet.site)


def closed_by_itself(fleet: Fleet) -> None:
    """End the run as ``report`` ends it."""
    body = {"run": f"patch__web::{fleet.request.run_id}", "sentence": "unfinished"}
    key = f"run-ended:{fleet.request.run_id}:0"
    fleet.ledger.append(NewEntry(chain=fleet.rollout, kind=EntryKind.RUN_ENDED, key=key, body=body))


async def half_done(folder: Path, **spec: object) -> Fleet:
    """Approve a plan in an open window and promote its canary; then the run ends with two waves left."""
    fleet = Fleet(folder, **spec)
    fleet.new_run("run-1", **SCHEDULED)
    await fleet.begin()
    assert await fleet.wave(1) is VerdictName.PROMOTE
    fleet.ledger.transition(fleet.rollout, RolloutState.WAITING, reason="wave 2 is not finished")
    closed_by_itself(fleet)
    return lost(fleet)


async def test_step_left_by_a_killed_worker_is_settled_by_its_id_and_runs_once(tmp_path: Path) -> None:
    fleet = await prepared(tmp_path)
    assert kill_at(fleet, "started", 1, "apply:1") == -9
    assert len(fleet.ledger.intents(rollout=fleet.rollout)) == 1
    fleet.clock.advance(seconds=60)
    lost(fleet)
    found = await tick(fleet)
    assert any("settled on" in sentence for sentence in found.sentences)
    assert fleet.ledger.intents(rollout=fleet.rollout) == []
    assert fleet.state == "waiting"
    assert [len(fleet.hosts.markers(name)) for name in fleet.names].count(1) == 1
    fleet.clock.advance(seconds=60)
    fleet.new_run("run-2")
    closing = await lost(fleet).whole(2)
    assert closing.good, closing.sentence
    assert fleet.twice() == []
    assert set(fleet.versions().values()) == {"1.1"}
    assert fleet.ledger.leases() == []
    assert fleet.ledger.verify() == []


async def test_intent_that_never_began_stays_open_and_costs_no_entry_a_tick(tmp_path: Path) -> None:
    fleet = await prepared(tmp_path)
    assert kill_at(fleet, "intent-written", 1, "apply:1") == -9
    fleet.clock.advance(seconds=60)
    lost(fleet)
    await tick(fleet)
    before = len(fleet.ledger.entries(fleet.rollout))
    assert await tick(fleet) == Reconciled()
    assert len(fleet.ledger.entries(fleet.rollout)) == before
    assert len(fleet.ledger.intents(rollout=fleet.rollout)) == 1
    assert all(fleet.hosts.markers(name) == [] for name in fleet.names)


@pytest.mark.parametrize("run", ["run-1", "run-0"])
async def test_rollout_of_a_run_at_work_is_left_alone_even_if_an_older_run_was_cleared(
    tmp_path: Path, run: str
) -> None:
    fleet = await prepared(tmp_path)
    older = {"run": "patch__web::run-0", "mode": "apply", "request": fleet.request.model_dump(mode="json")}
    fleet.ledger.append(NewEntry(chain=fleet.rollout, kind=EntryKind.RUN_BEGAN, key="run-began:run-0", body=older))
    lost(fleet, f"patch__web::{run}")
    assert await tick(fleet) == Reconciled()
    assert fleet.state == "running"


async def test_rollout_with_a_living_lease_is_left_alone_whatever_airflow_says(tmp_path: Path) -> None:
    fleet = await prepared(tmp_path)
    assert kill_at(fleet, "started", 1, "apply:1") == -9
    lost(fleet)
    assert await tick(fleet) == Reconciled()
    assert fleet.state == "running"


async def test_run_marked_failed_during_undo_is_undone_to_the_end(tmp_path: Path) -> None:
    fleet = await prepared(tmp_path)
    canary = next(item.target.name for item in fleet.frozen.targets if item.wave == 1)
    fleet.metrics.errors[canary] = 0.3
    await fleet.apply(1)
    assert (await fleet.judge(1)).verdict is VerdictName.UNDO
    await tick(lost(fleet))
    assert fleet.state == "undone"
    assert set(fleet.versions().values()) == {"1.0"}
    assert fleet.twice() == []


async def test_stop_switch_keeps_even_an_undo_from_beginning(tmp_path: Path) -> None:
    fleet = await prepared(tmp_path)
    canary = next(item.target.name for item in fleet.frozen.targets if item.wave == 1)
    fleet.metrics.errors[canary] = 0.3
    await fleet.apply(1)
    await fleet.judge(1)
    body = {"on": True, "reason": "incident 7"}
    fleet.ledger.append(NewEntry(chain=CONTROL, kind=EntryKind.STOP_SWITCH, key="stop:1", body=body))
    found = await tick(lost(fleet))
    assert "incident 7" in found.sentences[0]
    assert fleet.state == "undoing"
    assert fleet.versions()[canary] == "1.1"


async def test_unfinished_rollout_in_an_open_window_gets_one_run_a_window(tmp_path: Path) -> None:
    fleet = await half_done(tmp_path, schedule=TUESDAY_NOON)
    found = await tick(fleet)
    assert [(item.dag_id, item.run_id) for item in found.go_on] == [
        ("patch__web", f"reconcile__{fleet.rollout}__20261124T1130")
    ]
    assert await tick(fleet) == found
    fleet.new_run(found.go_on[0].run_id)
    await fleet.discover()
    closed_by_itself(fleet)
    assert (await tick(fleet)).go_on == ()


def _window_closed(fleet: Fleet) -> None:
    fleet.clock.advance(hours=5)


def _held(fleet: Fleet) -> None:
    fleet.ledger.transition(fleet.rollout, RolloutState.HELD, reason="a person holds it")


def _too_old(fleet: Fleet) -> None:
    fleet.clock.advance(weeks=3)


def _stopped(fleet: Fleet) -> None:
    body = {"on": True, "reason": "incident 7"}
    fleet.ledger.append(NewEntry(chain=CONTROL, kind=EntryKind.STOP_SWITCH, key="stop:1", body=body))


def _marked_failed(fleet: Fleet) -> None:
    run = {"run": "patch__web::run-9", "mode": "apply", "request": fleet.request.model_dump(mode="json")}
    fleet.ledger.append(NewEntry(chain=fleet.rollout, kind=EntryKind.RUN_BEGAN, key="run-began:run-9", body=run))


@pytest.mark.parametrize("change", [_window_closed, _held, _too_old, _stopped, _marked_failed])
async def test_no_run_is_triggered_when(tmp_path: Path, change: Callable[[Fleet], None]) -> None:
    fleet = await half_done(tmp_path, schedule=TUESDAY_NOON)
    change(fleet)
    assert (await tick(fleet)).go_on == ()


async def test_policy_without_windows_is_never_triggered_by_itself(tmp_path: Path) -> None:
    fleet = await half_done(tmp_path)
    assert (await tick(fleet)).go_on == ()


async def test_run_of_the_schedule_gets_its_time_to_begin_first(tmp_path: Path) -> None:
    fleet = await half_done(tmp_path, schedule=TUESDAY_NOON)
    fleet.clock.now = fleet.clock.now.replace(hour=11, minute=30) + timedelta(days=7, minutes=4)
    assert (await tick(fleet)).go_on == ()
    fleet.clock.advance(minutes=2)
    assert len((await tick(fleet)).go_on) == 1


async def test_plan_that_nobody_approved_expires_with_its_validity(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, approval={"required": 2}, plan={"validFor": "1h"})
    await fleet.plan()
    lost(fleet)
    assert await tick(fleet) == Reconciled()
    fleet.clock.advance(hours=2)
    await tick(fleet)
    assert fleet.state == "expired"


@pytest.mark.parametrize("how", ["was deleted", "lost the worker of its report"])
async def test_run_that_nobody_marked_is_gone_on_with(tmp_path: Path, how: str) -> None:
    fleet = await half_done(tmp_path, schedule=TUESDAY_NOON)
    _marked_failed(fleet)
    fleet.site = replace(fleet.site, run_lost=lambda run: how if run == "patch__web::run-9" else None)
    assert len((await tick(fleet)).go_on) == 1


async def test_rollout_that_was_running_when_its_run_was_deleted_gets_its_run_in_the_same_tick(tmp_path: Path) -> None:
    fleet = await half_done(tmp_path, schedule=TUESDAY_NOON)
    _marked_failed(fleet)
    fleet.ledger.transition(fleet.rollout, RolloutState.RUNNING, reason="wave 2 began")
    fleet.site = replace(fleet.site, run_lost=lambda _run: "was deleted")
    assert len((await tick(fleet)).go_on) == 1
    assert fleet.state == "waiting"


def _no_connection(*_: object) -> object:
    raise ConnectionMissing('connection "fleet" does not exist')


def _refused_options(*_: object) -> object:
    return SimulatedOptions.model_validate({"removed": True})


async def undoing(fleet: Fleet, policy: str) -> str:
    """Bring a rollout of a policy to an undo that its run leaves to others."""
    metadata = fleet.policy.metadata.model_copy(update={"name": policy})
    fleet.policy = fleet.policy.model_copy(update={"metadata": metadata})
    fleet.request = Request(dag_id=f"patch__{policy}", run_id="run-1")
    await fleet.begin()
    await fleet.gate(1)
    await fleet.apply(1)
    fleet.ledger.transition(fleet.rollout, RolloutState.UNDOING, reason="the canary got worse")
    return fleet.rollout


def breaks_for_the_first(broken: Callable[..., object], works: Callable[..., Any]) -> Callable[..., Any]:
    """Rollouts are looked after in the order of their names."""
    asked: list[int] = []

    def one_after_the_other(*args: object) -> Any:
        asked.append(1)
        return broken() if len(asked) == 1 else works(*args)

    return one_after_the_other


@pytest.mark.parametrize(
    ("part", "broken", "said"),
    [
        ("channel", _no_connection, 'connection "fleet" does not exist'),
        ("driver", _refused_options, "is not valid in this release: SimulatedOptions at removed"),
    ],
)
async def test_rollout_that_cannot_be_looked_after_says_so_and_keeps_no_other_waiting(
    tmp_path: Path, part: str, broken: Callable[..., object], said: str
) -> None:
    fleet = Fleet(tmp_path)
    first, second = await undoing(fleet, "app"), await undoing(fleet, "web")
    lost(fleet)
    working = getattr(fleet.site, part)
    fleet.site = replace(fleet.site, **{part: breaks_for_the_first(broken, working)})
    found = await tick(fleet)
    assert any(line.startswith(f"{first}: {CANNOT}: ") and said in line for line in found.sentences), found
    assert [states(fleet)[name] for name in (first, second)] == ["undoing", "undone"]
    assert said in waiting(fleet, first)
    fleet.site = replace(fleet.site, **{part: working})
    await tick(fleet)
    assert states(fleet)[first] == "undone"
    assert fleet.ledger.verify() == []


def states(fleet: Fleet) -> dict[str, str]:
    return {row.id: row.state.value for row in fleet.ledger.rollouts(limit=10)}


def waiting(fleet: Fleet, rollout: str) -> str:
    row = fleet.ledger.rollout(rollout)
    assert row is not None
    return waiting_for(row, fleet.ledger.targets(rollout))


async def test_rollout_whose_plan_is_refused_keeps_nobody_waiting_and_its_sentence_passes_with_the_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = await half_done(tmp_path, schedule=TUESDAY_NOON)
    old, before = fleet.rollout, waiting(fleet, fleet.rollout)
    other = await undoing(fleet, "zoo")
    works = Plan.frozen.__func__  # type: ignore[attr-defined]

    def refused(kind: type[Plan], document: dict[str, Any], name: str) -> Plan:
        return works(kind, {"unheard": 1} if document["policy"]["metadata"]["name"] == "web" else document, name)

    with monkeypatch.context() as patched:
        patched.setattr(Plan, "frozen", classmethod(refused))
        found = await tick(lost(fleet))
        assert any(
            line.startswith(f"{old}: {CANNOT}: what was frozen with it is not valid") for line in found.sentences
        )
        assert waiting(fleet, old).startswith(CANNOT)
        assert states(fleet)[other] == "undone"
        entries = len(fleet.ledger.entries(old))
        await tick(fleet)
        assert len(fleet.ledger.entries(old)) == entries
    await tick(fleet)
    assert waiting(fleet, old) == before


async def test_ledger_that_is_gone_ends_the_look_at_all(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await undoing(fleet, "web")

    def gone(*_: object) -> object:
        raise LedgerUnavailable("gone")

    lost(fleet)
    fleet.site = replace(fleet.site, channel=gone)  # type: ignore[arg-type]
    with pytest.RaisesGroup(LedgerUnavailable, allow_unwrapped=True, flatten_subgroups=True):
        await tick(fleet)


async def test_undo_that_finds_no_place_is_given_up_for_this_tick_and_says_for_what_it_waits(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, rollout={"waves": [{"size": "100%"}]}, verify=[])
    rollout = await undoing(fleet, "web")
    name = fleet.frozen.targets[0].target.name
    held = fleet.ledger.acquire("somebody", "other-1", name, [Claim(kind="target", name=name, limit=1)], ttl=600)
    assert isinstance(held, Lease)
    found = await tick(lost(fleet))
    assert any(f"5 of 6 undone; NOT undone: {name}; {name} waits for " in line for line in found.sentences), found
    assert states(fleet)[rollout] == "undoing"
    row = next(row for row in fleet.ledger.targets(rollout) if row.target == name)
    assert row.waits_for.endswith("; then it is undone")
    assert waiting(fleet, rollout) == f"{name} {row.waits_for}"
    entries = len(fleet.ledger.entries(rollout))
    await tick(fleet)
    assert len(fleet.ledger.entries(rollout)) == entries
    fleet.ledger.release(held)
    await tick(fleet)
    assert states(fleet)[rollout] == "undone"


async def test_undo_goes_on_in_the_same_tick_as_long_as_places_are_given_back(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, rollout={"waves": [{"size": "100%"}], "maxUnavailable": 1}, verify=[])
    rollout = await undoing(fleet, "web")
    await tick(lost(fleet))
    assert states(fleet)[rollout] == "undone"


async def test_rollout_that_takes_too_long_is_left_for_the_next_tick_and_nothing_runs_twice(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    first = await undoing(fleet, "app")
    slow = next(row.target for row in fleet.ledger.targets(first) if row.began_at is not None)
    second = await undoing(fleet, "web")
    lost(fleet)
    fleet.hosts.change(slow, slow=3600)
    found = await reconcile(fleet.site, longest=1)
    assert f"{first}: not done within 1 s: the next tick goes on with it" in found.sentences
    assert [states(fleet)[name] for name in (first, second)] == ["undoing", "undone"]
    fleet.hosts.change(slow, slow=0)
    fleet.clock.advance(seconds=60)
    await tick(fleet)
    assert states(fleet)[first] == "undone"
    assert fleet.twice() == []


class StillRuns(SimulatedChannel):
    """Hosts on which a step that has begun does not end."""

    def __init__(self, fleet: Fleet, waited: list[float]) -> None:
        super().__init__(fleet.hosts)
        self.waited = waited

    async def open(self, target: Target, *, deadline: float = 30.0) -> Session:
        session = await super().open(target, deadline=deadline)
        look, waited = session.look, self.waited

        async def running(step_id: str, step: Step) -> Progress:
            found = await look(step_id, step)
            return Progress(attach=Attach.RUNNING) if found.attach is Attach.ENDED else found

        async def wait(handle: Handle, step: Step) -> Progress:
            waited.append(step.deadline)
            return await running(handle.step_id, step)

        session.look, session.wait = running, wait  # type: ignore[method-assign]
        return session


async def test_step_that_still_runs_is_looked_at_again_and_only_one_over_its_deadline_is_cancelled(
    tmp_path: Path,
) -> None:
    fleet = await prepared(tmp_path)
    assert kill_at(fleet, "started", 1, "apply:1") == -9
    (intent,) = fleet.ledger.intents(rollout=fleet.rollout)
    fleet.clock.advance(seconds=30)
    lost(fleet)
    waited: list[float] = []
    calm = fleet.site
    fleet.site = replace(fleet.site, channel=lambda _name: StillRuns(fleet, waited))
    found = await tick(fleet)
    assert any("still runs there: it is looked at again at the next tick" in line for line in found.sentences), found
    assert waited == []
    assert len(fleet.ledger.intents(rollout=fleet.rollout)) == 1
    fleet.clock.advance(seconds=float(intent.step["deadline"]))
    await tick(fleet)
    assert waited == [LAST_WAIT]
    assert fleet.ledger.intents(rollout=fleet.rollout) == []
    fleet.site = calm
