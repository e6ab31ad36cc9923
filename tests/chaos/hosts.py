"""Hosts in files that outlive every engine: time passes on them, they restart, go dark and keep a log of what they did.

Beyond channel ``simulated`` a step takes time (``pace``) and goes on whatever becomes of the engine; whoever looks next
finds what has happened meanwhile, with the moment at which it happened.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from patching.change import Phase, Reply, Step
from patching.channels.base import Attach, Handle, Progress, Session
from patching.channels.simulated import SimulatedFleet, SimulatedSession, _write
from patching.errors import ChannelError, TargetOffline
from patching.target import Target

DARK_AFTER_REBOOT = 0.05
PATIENCE = 0.4


class Hosts(SimulatedFleet):
    """The folder of host folders. ``changes.log``: moment, what, +/-; ``acts.log``: step id, what, from, to."""

    def log(self, name: str, what: str, sign: str, moment: float) -> None:
        """Write down when something began (+), ended (-), or when the host was booted (!)."""
        with (self.folder / name / "changes.log").open("a") as file:
            file.write(f"{moment:.6f} {what} {sign}\n")

    def act(self, name: str, *words: object) -> None:
        """Write down what really changed."""
        with (self.folder / name / "acts.log").open("a") as file:
            file.write("\t".join(str(word) for word in words) + "\n")

    def record(self, name: str, step_id: str) -> Path:
        """Give where a step leaves its trace."""
        return self.folder / name / "steps" / f"{step_id}.json"

    def passed(self, name: str) -> dict[str, Any]:
        """Let happen what should have happened by now; the caller holds the host's lock."""
        state, now = self.state(name), time.time()
        for step_id in list(state.get("running", [])):
            left = json.loads(self.record(name, step_id).read_text())
            if left["from"] <= now and not left["begun"]:
                left["begun"] = True
                self._begin(name, state, step_id, left)
            if left["until"] <= now:
                self._end(name, state, step_id, left)
                state["running"].remove(step_id)
            _write(self.record(name, step_id), left)
        _write(self.folder / name / "host.json", state)
        return state

    def _begin(self, name: str, state: dict[str, Any], step_id: str, left: dict[str, Any]) -> None:
        with (self.folder / name / "markers.log").open("a") as markers:
            markers.write(step_id + "\n")
        self.log(name, left["what"], "+", left["from"])
        if left["what"] == "out":
            state["out"] = True

    def _end(self, name: str, state: dict[str, Any], step_id: str, left: dict[str, Any]) -> None:
        what, now = left["what"], left["until"]
        if what in ("set", "undo"):
            self._set(name, state, step_id, left)
        if what == "reboot":
            self.act(name, step_id, "reboot", state["reboot_required"], "")
            state["reboot_required"] = False
            self._boot(state, now)
            left["rebooted"] = True
        if what == "in":
            state["out"] = False
            self.log(name, "out", "-", now)
        if what != "out":
            self.log(name, what, "-", now)
        left["exit"] = 0

    def _set(self, name: str, state: dict[str, Any], step_id: str, left: dict[str, Any]) -> None:
        component, to = left["name"], left["to"]
        self.act(name, step_id, component, state["installed"].get(component), to)
        installed = {**state["installed"], component: to}
        state["installed"] = {key: value for key, value in installed.items() if value is not None}
        state["reboot_required"] = component == "kernel" or bool(state.get("reboot_required"))
        mixed = len(set(state["installed"].values())) > 1
        self.log(name, "broken", "+" if mixed or does_not_serve(state) else "-", left["until"])

    def _boot(self, state: dict[str, Any], now: float) -> None:
        state["boot_id"] = f"boot-{int(state['boot_id'].rsplit('-', 1)[1]) + 1}"
        state["dark_until"] = now + DARK_AFTER_REBOOT

    def reboot(self, name: str) -> None:
        """Take the power for a moment: what ran is gone in the middle, what waited for its turn never began."""
        with self.locked(name):
            state, now = self.passed(name), time.time()
            for step_id in state.get("running", []):
                left = json.loads(self.record(name, step_id).read_text())
                if not left["begun"]:
                    self.record(name, step_id).unlink()
                    continue
                left["interrupted"] = True
                _write(self.record(name, step_id), left)
            self._boot(state, now)
            state["running"] = []
            self.log(name, "boot", "!", now)
            _write(self.folder / name / "host.json", state)

    def healed(self, name: str) -> None:
        """End every fault of a host."""
        self.change(name, cuts=0, cuts_after=0, dark_until=0.0, full_until=0.0)


class HostChannel:
    """Opens sessions to the hosts of a folder."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts

    async def open(self, target: Target, *, deadline: float = 30.0) -> Session:
        """Open a session; raises TargetOffline where the host is dark or the connection is cut."""
        session = HostSession(self.hosts, target.name)
        session.state()
        return session


class HostSession(SimulatedSession):
    """A session to one host."""

    fleet: Hosts

    def state(self, *, cut_after: bool = False) -> dict[str, Any]:
        """Give the host as it is now; raises TargetOffline where it does not answer or the connection is cut."""
        with self.fleet.locked(self.name):
            return self._state(cut_after=cut_after)

    def _state(self, *, cut_after: bool = False) -> dict[str, Any]:
        state = self.fleet.passed(self.name)
        for key, happens in (("cuts", True), ("cuts_after", cut_after)):
            if happens and state.get(key, 0) > 0:
                _write(self.fleet.folder / self.name / "host.json", {**state, key: state[key] - 1})
                raise TargetOffline(f"the connection to {self.name} was cut (simulated)")
        if state.get("dark_until", 0.0) > time.time():
            raise TargetOffline(f"{self.name} does not answer (simulated)")
        return state

    async def read(self, step: Step) -> Reply:
        state = self.state()
        if step.call.get("op") == "read":
            return Reply(step=step.name, exit_code=0, stdout=json.dumps(state))
        return Reply(step=step.name, exit_code=1 if does_not_serve(state) else 0)

    async def start(self, step_id: str, step: Step) -> Handle:
        record = self.fleet.record(self.name, step_id)
        with self.fleet.locked(self.name):
            state = self._state()
            if not record.exists():
                self._room(state)
                self._prepare(state, step_id, step)
            state = self._state(cut_after=True)
        return Handle(
            step_id=step_id, target=self.name, member=step.member, directory=str(record), boot_id=state["boot_id"]
        )

    def _room(self, state: dict[str, Any]) -> None:
        if state.get("full_until", 0.0) > time.time():
            raise ChannelError(f"{self.name} cannot keep steps: No space left on device (simulated)")

    def _prepare(self, state: dict[str, Any], step_id: str, step: Step) -> None:
        """Queue a step behind those that run: one acting step a host."""
        running = [json.loads(self.fleet.record(self.name, other).read_text()) for other in state.get("running", [])]
        first = max([time.time(), *(left["until"] for left in running)])
        trace = {"from": first, "until": first + state["pace"], "begun": False, "exit": None, **_meant(step)}
        _write(self.fleet.record(self.name, step_id), trace)
        state = {**state, "running": [*state.get("running", []), step_id]}
        _write(self.fleet.folder / self.name / "host.json", state)

    async def wait(self, handle: Handle, step: Step) -> Progress:
        """Wait for the end, at most the deadline; a dark host is waited for a moment, as by a real session."""
        end, patience = time.monotonic() + step.deadline, time.monotonic() + PATIENCE
        while True:
            try:
                progress = await self.look(handle.step_id, step)
            except TargetOffline:
                if time.monotonic() > patience:
                    raise
            else:
                if progress.attach is not Attach.RUNNING or time.monotonic() > end:
                    return progress
            await asyncio.sleep(0.01)

    async def look(self, step_id: str, step: Step) -> Progress:
        with self.fleet.locked(self.name):
            return self._seen(self._state(), step_id, step)

    def _seen(self, state: dict[str, Any], step_id: str, step: Step) -> Progress:
        record, boot = self.fleet.record(self.name, step_id), state["boot_id"]
        if not record.exists():
            return Progress(attach=Attach.ABSENT, boot_id=boot)
        left = json.loads(record.read_text())
        if left.get("forbidden"):
            return Progress(attach=Attach.FORBIDDEN, boot_id=boot)
        if left.get("interrupted") or left.get("rebooted"):
            return Progress(attach=Attach.REBOOTED, boot_id=boot)
        if left["exit"] is None:
            return Progress(attach=Attach.RUNNING, boot_id=boot)
        return Progress(attach=Attach.ENDED, reply=Reply(step=step.name, exit_code=left["exit"]), boot_id=boot)

    async def forbid(self, step_id: str, step: Step) -> Progress:
        record = self.fleet.record(self.name, step_id)
        with self.fleet.locked(self.name):
            state = self._state()
            if not record.exists():
                self._room(state)
                _write(record, {"forbidden": True})
            return self._seen(self._state(cut_after=True), step_id, step)


def does_not_serve(state: dict[str, Any]) -> bool:
    """Whether the new version does not work here, and is installed."""
    return bool(state.get("bad")) and state["installed"]["shop"] != "1.0"


def _meant(step: Step) -> dict[str, Any]:
    """Say what a step will do here: install, reboot, or take the service out and in again by a hook's script."""
    op, script = step.call.get("op"), str(step.call.get("script", ""))
    if op == "set":
        return {"what": "undo" if step.phase is Phase.UNDO else "set", "name": step.call["name"], "to": step.call["to"]}
    if op == "reboot":
        return {"what": "reboot"}
    if "service out" in script:
        return {"what": "out"}
    return {"what": "in" if "service in" in script else "other"}
