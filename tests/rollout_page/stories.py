"""Rollouts told entry by entry into a ledger, as the engine writes them: what the page has to show."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ledger_suite.empty import place_empty_ledger
from patching.advisory import Priority
from patching.change import Outcome, Patch, Phase, Step, StepKind, Undo, step_id
from patching.ledger.base import Ledger
from patching.ledger.entry import CONTROL, EntryKind, NewEntry
from patching.ledger.store import SqlLedger, open_ledger
from patching.plan.document import CheckPower, Exclusion, Plan, PlannedTarget, PlannedWave
from patching.policy import Policy
from patching.rollout.states import RolloutState
from patching.target import Member, Target

START = datetime(2026, 11, 24, 22, 0, tzinfo=UTC)
RUN = "manual__2026-11-24T22:00:00+00:00"
K = EntryKind


class Moment:
    """A clock that a story moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def open_story_ledger(folder: Path) -> tuple[SqlLedger, Moment]:
    """Open a ledger with a clock of its own."""
    clock = Moment()
    return open_ledger(place_empty_ledger(folder / "ledger.sqlite"), clock=clock), clock


COUNTERS = {"connection": "prom", "errors": "errors_total{$series}", "requests": "requests_total{$series}"}


def policy(name: str) -> Policy:
    return Policy.model_validate(
        {
            "apiVersion": "patching/v1alpha1",
            "kind": "PatchPolicy",
            "metadata": {"name": name},
            "spec": {
                "verify": [{"name": "errors", "prometheus": COUNTERS}],
                "mode": "apply",
                "driver": {"name": "apt", "connection": "ssh_prod"},
                "targets": {"inventory": "prod.yaml", "maxTargets": 1000},
                "rollout": {"failureDomain": "az"},
                "schedule": {
                    "timezone": "Europe/Berlin",
                    "windows": [{"rrule": "FREQ=WEEKLY;BYDAY=TU,WE", "start": "22:00", "duration": "4h"}],
                },
            },
        }
    )


class Story:
    """One rollout of ``size`` targets in three waves: a canary per zone, a tenth (or five), the rest."""

    def __init__(
        self, ledger: Ledger, clock: Moment, *, size: int, name: str = "web-os-security", emergency: bool = False
    ):
        self.ledger, self.clock, self.emergency = ledger, clock, emergency
        self.rollout = f"{name}-20261124-220000-1"
        width = 2 if size < 100 else 3
        self.names = [f"web-{number:0{width}d}" for number in range(1, size + 1)]
        second = max(5, size // 10)
        self.waves = {1: self.names[:3], 2: self.names[3 : 3 + second], 3: self.names[3 + second :]}
        self.plan = self._plan(policy(name))

    def _plan(self, rules: Policy) -> Plan:
        wave_of = {name: index for index, names in self.waves.items() for name in names}
        statement = "a rise of the error share from 1 % to 2.4 % or more is seen with 95 % certainty"
        return Plan(
            rollout=self.rollout,
            policy=rules,
            policy_digest="0" * 64,
            created_at=START - timedelta(hours=24),
            emergency=self.emergency,
            targets=tuple(self._planned(number, name, wave_of[name]) for number, name in enumerate(self.names)),
            exclusions=(Exclusion(target="web-old", code="waiver", reason="waiver W-12 until 2026-12-01"),),
            waves=tuple(
                PlannedWave(index=index, canary=index == 1, targets=tuple(names), soak=600.0 if index < 3 else 0.0)
                for index, names in self.waves.items()
            ),
            power=tuple(CheckPower(check="errors", wave=i, comparison="control", statement=statement) for i in (1, 2)),
            approval_required=2,
            approval_reason="more than 5 targets are changed",
        )

    def _planned(self, number: int, name: str, wave: int) -> PlannedTarget:
        zone = f"az-{'abc'[number % 3]}"
        patches = (
            Patch(component="shopfront", before="1.4.2-1", after="1.4.3-1", advisories=("LAB-2026-0003",)),
            Patch(component="libssl3", before="3.0.15-1~deb12u1", after="3.0.17-1~deb12u1"),
            Patch(component="openssl", before="3.0.15-1~deb12u1", after="3.0.17-1~deb12u1"),
        )
        return PlannedTarget(
            target=Target(
                name=name,
                labels={"az": zone, "role": "web"},
                members=(Member(address=f"10.20.{number // 250}.{number % 250 + 1}"),),
            ),
            wave=wave,
            patches=patches,
            before={patch.component: patch.before for patch in patches},
            findings=(),
            priority=Priority(rank=1, name="urgent", reason="exploited in the wild, exposed to the internet"),
            reboot=number % 4 == 0,
            undo=Undo(possible=True, covered=3, total=3),
            reason="3 security updates",
        )

    # Telling

    def write(self, kind: EntryKind, key: str, body: dict[str, Any], **more: Any) -> None:
        self.ledger.append(NewEntry(chain=self.rollout, kind=kind, key=key, body=body, **more))

    def wait(self, **by: float) -> None:
        self.clock.now += timedelta(**by)

    def state(self, to: RolloutState, reason: str) -> None:
        self.ledger.transition(self.rollout, to, reason=reason)

    def says(self, sentence: str, target: str | None = None) -> None:
        self.write(K.WAITS, f"waits:{target}:{self.clock.now.isoformat()}", {"sentence": sentence}, target=target)

    def opened(self) -> Story:
        """Open it and freeze its plan."""
        body = {"policy": self.plan.policy.name, "emergency": self.emergency, "requested_by": "scheduler"}
        self.write(K.ROLLOUT_OPENED, "opened", body)
        run = NewEntry(chain=CONTROL, kind=K.RUN_BEGAN, key=f"run:{self.dag_id}:{RUN}", body={"rollout": self.rollout})
        self.ledger.append(run)
        self.write(K.RUN_BEGAN, f"run-began:{RUN}", {"run": f"{self.dag_id}::{RUN}", "mode": "apply"})
        document = self.ledger.store_document("plan", self.plan.model_dump(mode="json"))
        targets = [{"name": item.target.name, "wave": item.wave} for item in self.plan.targets]
        self.write(K.PLAN_FROZEN, "plan", {"plan": document, "targets": targets})
        return self

    @property
    def dag_id(self) -> str:
        return "patch_emergency" if self.emergency else f"patch__{self.plan.policy.name}"

    def asked(self) -> Story:
        """Wait for two approvals; one is there."""
        self.state(RolloutState.AWAITING_APPROVAL, "more than 5 targets are changed")
        self.answer("alice", "looks right")
        self.says("waits for 1 of 2 approvals by sre-leads (Browse, Required Actions), until Tue 22:00 Europe/Berlin")
        return self

    def answer(self, person: str, comment: str = "") -> None:
        body = {"person": person, "decision": "approve", "plan": self.plan.digest, "comment": comment}
        self.write(K.APPROVAL, f"approval:{person}", body, actor=person)

    def approved(self) -> Story:
        """Have two people approve."""
        self.state(RolloutState.AWAITING_APPROVAL, "more than 5 targets are changed")
        self.answer("alice", "looks right")
        self.wait(minutes=4)
        self.answer("bob")
        reason = "approved by alice and bob"
        body = {"approved": True, "people": ["alice", "bob"], "plan": self.plan.digest, "reason": reason}
        self.write(K.APPROVAL_DECIDED, "approved", body)
        self.state(RolloutState.WAITING, reason)
        return self

    def begin_wave(self, index: int) -> Story:
        """Open a wave's gate."""
        self.wait(minutes=1)
        control = [name for later, names in self.waves.items() if later > index for name in names]
        self.write(K.GATE, f"gate:{index}", {"wave": index, "gate": "all", "open": True, "reason": "open"})
        body = {"wave": index, "targets": self.waves[index], "control": control, "run": RUN}
        self.write(K.WAVE_STARTED, f"wave-started:{index}", body)
        self.state(RolloutState.RUNNING, f"wave {index} may start")
        return self

    def begin(self, name: str, phase: str = "apply", detail: str = "") -> None:
        """Begin one change job and leave it at work."""
        wave = next(index for index, names in self.waves.items() if name in names)
        self.write(K.TARGET_BEGAN, f"began:{name}", {"wave": wave, "run": RUN}, target=name)
        self.write(K.TARGET_PROGRESS, f"progress:{name}:{phase}", {"phase": phase, "detail": detail}, target=name)

    def steps(self, name: str, *ends: tuple[str, Phase, int | None, str]) -> None:
        """Run steps: (name, phase, exit code, output); exit code None leaves the intent open."""
        for step_name, phase, code, said in ends:
            step = Step(name=step_name, phase=phase, kind=StepKind.ACT, call={"script": "…", "sudo": True})
            found = step_id(self.rollout, name, phase, step_name, 0)
            body = {"step": step.model_dump(mode="json"), "generation": 0}
            self.write(K.INTENT, f"intent:{found}", body, target=name, step=found)
            self.wait(seconds=3)
            if code is None:
                return
            ended = {"step": step_name, "phase": phase.value, "attach": "ended", "ok": code == 0, "exit_code": code}
            ended |= {"detail": "" if code == 0 else said.splitlines()[-1], "stdout": said, "stderr": ""}
            self.write(K.STEP_OUTCOME, f"outcome:{found}", ended, target=name, step=found)

    def end(self, name: str, outcome: Outcome, reason: str, *, undo: bool = False) -> None:
        """End one change job, or its undo."""
        body = {"outcome": outcome.value, "reason": reason, "signature": None, "active": True, "undo": undo}
        self.write(K.TARGET_OUTCOME, f"outcome:{name}:{undo}", body, target=name)

    def patched(self, names: Sequence[str], *, seconds: float = 20.0) -> Story:
        """Patch targets one after the other."""
        for name in names:
            self.begin(name)
            if len(self.names) < 100:
                self._good_steps(name)
            self.wait(seconds=seconds)
            self.end(name, Outcome.APPLIED, "3 packages installed, shopfront.service restarted")
        return self

    def _good_steps(self, name: str) -> None:
        installed = "Setting up libssl3:amd64 (3.0.17-1~deb12u1) ...\nSetting up shopfront (1.4.3-1) ..."
        self.steps(
            name,
            ("download", Phase.PREPARE, 0, "Fetched 3 packages, hashes as planned"),
            ("install", Phase.APPLY, 0, installed),
            ("restart-services", Phase.ACTIVATE, 0, "shopfront.service restarted"),
        )

    def measured(self, wave: int, bad: float, good: float = 0.01) -> Story:
        """Measure the canary of a wave against control; ``bad`` is its error share after the change."""
        self.wait(minutes=10)
        canary, control = self.waves[wave], [name for name in self.names if name not in self.waves[wave]][-20:]
        first = self.clock.now - timedelta(minutes=24)
        applied = [row for row in self.ledger.targets(self.rollout) if row.outcome is Outcome.APPLIED]
        ended = [(row.target, row.ended_at) for row in applied if row.wave == wave and row.ended_at is not None]
        changes = [{"target": name, "at": at.isoformat()} for name, at in ended]
        changed = min(datetime.fromisoformat(change["at"]) for change in changes)

        def points(share_after: float) -> list[list[Any]]:
            found = []
            for part in range(25):
                at = first + timedelta(minutes=part)
                share = share_after if at > changed else good
                wobble = 1 + 0.25 * ((part * 7) % 5 - 2) / 2
                found.append([at.isoformat(), round(600 * share * wobble, 1), 600])
            return found

        series = [{"target": name, "role": "canary", "points": points(bad)} for name in canary]
        series += [{"target": name, "role": "control", "points": points(good)} for name in control]
        data = self.ledger.store_document("measured", {"series": series, "changes": changes})
        self.write(K.MEASURED, f"measured:{wave}:errors", {"wave": wave, "check": "errors", "data": data})
        return self

    def judged(
        self,
        wave: int,
        verdict: str,
        reason: str,
        treated: float,
        reference: float,
        p_value: float,
        requests: int = 9000,
    ) -> Story:
        """Write a wave's verdict with its numbers."""
        numbers = {
            "treated_errors": round(requests * treated),
            "treated_requests": requests,
            "reference_errors": round(60000 * reference),
            "reference_requests": 60000,
            "treated_share": treated,
            "reference_share": reference,
            "ratio": treated / reference,
            "ratio_low": treated / reference * (1 - 0.08 * (9000 / requests) ** 0.5),
            "ratio_high": None,
            "p_value": p_value,
            "alpha": 0.05,
            "share_low": None,
            "share_high": None,
            "spread": None,
        }
        check = {"name": "errors", "verdict": verdict, "comparison": "control", "test": "exact", "numbers": numbers}
        check |= {"silent": [], "idle": [], "passed_over": [], "reason": reason}
        body = {"wave": wave, "verdict": verdict, "reason": reason, "checks": [check]}
        self.write(K.VERDICT, f"verdict:{wave}", body)
        return self


GOOD = "errors: 1.02 % of 9 000 requests against 1.00 % of control: not worse (p = 0.44)"
UNSURE = (
    "errors: 1.33 % of 900 requests against 1.00 % of control: too few to tell chance from harm (p = 0.19), so no pass"
)
BAD = "errors: 3.9 % of 9 000 requests against 1.0 % of control, 3.9 times as many (at least 3.6 times; p < 0.0001)"


def held(ledger: Ledger, clock: Moment, size: int) -> Story:
    """Tell a rollout whose second wave is held: the canary was good, then there was too little traffic to tell."""
    story = Story(ledger, clock, size=size).opened().approved().begin_wave(1).patched(story_names(size, 1))
    story.measured(1, 0.0102).judged(1, "promote", GOOD, 0.0102, 0.01, 0.44).begin_wave(2)
    second = story.waves[2]
    story.patched(second[:-1], seconds=25.0 if size < 100 else 5.0)
    story.begin(second[-1])
    story.end(second[-1], Outcome.OFFLINE, "no connection: 10.20.0.8 port 22 timed out after 3 tries")
    story.measured(2, 0.0133).judged(2, "hold", UNSURE, 12 / 900, 0.01, 0.19, requests=900)
    story.state(RolloutState.HELD, f"wave 2: {UNSURE}")
    return story


def story_names(size: int, wave: int) -> list[str]:
    """Give the names of a wave's targets before the story exists."""
    width = 2 if size < 100 else 3
    first, second = 3, max(5, size // 10)
    ranges = {1: range(1, first + 1), 2: range(first + 1, first + second + 1), 3: range(first + second + 1, size + 1)}
    return [f"web-{number:0{width}d}" for number in ranges[wave]]


def at_work(ledger: Ledger, clock: Moment, size: int) -> Story:
    """Tell a rollout in the middle of its last wave, with every state that a target can have."""
    story = Story(ledger, clock, size=size).opened().approved().begin_wave(1).patched(story_names(size, 1))
    story.measured(1, 0.0102).judged(1, "promote", GOOD, 0.0102, 0.01, 0.44).begin_wave(2)
    story.patched(story.waves[2], seconds=5.0).measured(2, 0.0101)
    story.judged(2, "promote", GOOD, 0.0101, 0.01, 0.44).begin_wave(3)
    last = story.waves[3]
    done = last[: max(1, len(last) // 2)]
    story.patched(done, seconds=1.0)
    rest = [name for name in last if name not in done]
    odd = [
        (Outcome.NOTHING_TO_DO, "has 1.4.3-1 already"),
        (Outcome.DRIFTED, "shopfront is 1.4.1-9, planned for 1.4.2-1"),
        (Outcome.FAILED, "dpkg: error processing package shopfront (--configure): exit status 1"),
        (Outcome.OFFLINE, "no connection"),
    ]
    for name, (outcome, reason) in zip(rest, odd, strict=False):
        story.begin(name)
        story.steps(name, ("install", Phase.APPLY, 0 if outcome is not Outcome.FAILED else 1, reason))
        story.end(name, outcome, reason)
    busy = rest[len(odd) : len(odd) + max(2, size // 20)]
    for name in busy:
        story.begin(name, detail="installs 3 packages")
        story.steps(name, ("install", Phase.APPLY, None, ""))
    waiting = rest[len(odd) + len(busy) : len(odd) + len(busy) + 3]
    for name in waiting:
        story.says("waits for failure_domain az-b: 5 of 5 in use by web-151, web-154, web-157, web-160", target=name)
    return story


def undone(ledger: Ledger, clock: Moment, size: int) -> Story:
    """Tell a rollout whose canary was bad: undone on the canary, nothing else was touched."""
    story = Story(ledger, clock, size=size, name="shopfront").opened().approved().begin_wave(1)
    story.patched(story.waves[1]).measured(1, 0.039).judged(1, "undo", BAD, 0.039, 0.01, 0.00001)
    story.state(RolloutState.UNDOING, f"wave 1: {BAD}")
    for name in reversed(story.waves[1]):
        story.write(K.TARGET_PROGRESS, f"undo:{name}", {"phase": "undo", "detail": ""}, target=name)
        story.steps(name, ("downgrade", Phase.UNDO, 0, "shopfront 1.4.3-1 -> 1.4.2-1"))
        story.end(name, Outcome.UNDONE, "3 packages are back at their versions of before", undo=True)
    story.state(RolloutState.UNDONE, f"wave 1: {BAD}")
    return story
