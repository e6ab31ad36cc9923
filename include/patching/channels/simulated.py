"""Channel `simulated`: hosts are folders, steps leave the same traces as on a real host, faults are asked for by files.

``host.json`` holds installed versions, offers, boot id and faults; ``markers.log`` has a line for every step that
really ran; ``steps/<id>.json`` is what a started step left behind. A step's effect survives the death of whoever
started it, as on a host.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from patching.change import Reply, Step, StepKind
from patching.channels.base import Attach, Handle, Progress, Session
from patching.errors import TargetOffline
from patching.target import Target


class SimulatedFleet:
    """A folder of host folders; tests and drills write their faults here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, **state: Any) -> None:
        """Add a host with ``installed`` and ``offers``.

        Faults: offline, fail, slow (seconds), no_undo, fail_undo, stays_dark (after a reboot).
        """
        host = self.folder / name
        (host / "steps").mkdir(parents=True, exist_ok=True)
        state = {"installed": {}, "offers": {}, "boot_id": "boot-1", **state}
        _write(host / "host.json", state)

    def state(self, name: str) -> dict[str, Any]:
        """Read a host's file."""
        found: dict[str, Any] = json.loads((self.folder / name / "host.json").read_text())
        return found

    def change(self, name: str, **changes: Any) -> None:
        """Change a host's file, as somebody else on the host would."""
        with self.locked(name):
            _write(self.folder / name / "host.json", {**self.state(name), **changes})

    def markers(self, name: str) -> list[str]:
        """Give the ids of the steps that really ran on a host, one entry for every time."""
        path = self.folder / name / "markers.log"
        return path.read_text().split() if path.exists() else []

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the host's one lock."""
        with (self.folder / name / "lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _write(path: Path, state: dict[str, Any]) -> None:
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(state))
    draft.replace(path)


class SimulatedChannel:
    """Opens sessions to hosts that are folders."""

    def __init__(self, fleet: SimulatedFleet) -> None:
        self.fleet = fleet

    async def open(self, target: Target, *, deadline: float = 30.0) -> Session:
        """Open a session; raises TargetOffline where the host's file says offline."""
        session = SimulatedSession(self.fleet, target.name)
        session.reachable()
        return session


class SimulatedSession:
    """A session to one folder."""

    def __init__(self, fleet: SimulatedFleet, name: str) -> None:
        self.fleet = fleet
        self.name = name

    @property
    def lost(self) -> bool:
        """Say no: a folder has no connection that could break."""
        return False

    def reachable(self) -> None:
        """Raise TargetOffline where the host does not answer."""
        if not (self.fleet.folder / self.name).is_dir() or self.fleet.state(self.name).get("offline"):
            raise TargetOffline(f"{self.name} does not answer (simulated)")

    async def read(self, step: Step) -> Reply:
        """Give the host's file, or run a command probe that the file answers."""
        self.reachable()
        state = self.fleet.state(self.name)
        if step.call.get("op") == "read":
            return Reply(step=step.name, exit_code=0, stdout=json.dumps(state))
        return Reply(step=step.name, exit_code=int(state.get("probe_exit", 0)))

    async def start(self, step_id: str, step: Step) -> Handle:
        """Run the step's effect once for its id, whoever asks and however often."""
        self.reachable()
        record = self.fleet.folder / self.name / "steps" / f"{step_id}.json"
        with self.fleet.locked(self.name):
            state = self.fleet.state(self.name)
            if not record.exists():
                with (self.fleet.folder / self.name / "markers.log").open("a") as markers:
                    markers.write(step_id + "\n")
                _write(record, self._effect(state, step))
        return Handle(
            step_id=step_id, target=self.name, member=step.member, directory=str(record), boot_id=state["boot_id"]
        )

    def _effect(self, state: dict[str, Any], step: Step) -> dict[str, Any]:
        name, op = str(step.call.get("name", "")), step.call.get("op")
        fault = state.get("fail_undo" if step.phase.value == "undo" else "fail")
        if fault:
            return {"exit": int(fault), "stderr": f"simulated failure of {step.name}"}
        if state.get("lose"):
            _write(self.fleet.folder / self.name / "host.json", {**state, "lose": False})
            return {"exit": None, "stderr": ""}
        if op == "reboot":
            number = int(state["boot_id"].rsplit("-", 1)[1]) + 1
            changes: dict[str, Any] = {"boot_id": f"boot-{number}", "reboot_required": False}
            changes["offline"] = bool(state.get("stays_dark"))
        elif step.kind is StepKind.ACT and op == "set":
            installed = {**state["installed"], name: step.call["to"]}
            changes = {"installed": {key: value for key, value in installed.items() if value is not None}}
            changes["reboot_required"] = name == "kernel" or bool(state.get("reboot_required"))
        else:
            changes = {}
        _write(self.fleet.folder / self.name / "host.json", {**state, **changes})
        return {"exit": 0, "stderr": "", "rebooted": op == "reboot"}

    async def wait(self, handle: Handle, step: Step) -> Progress:
        """Wait as long as the host's file says that a step takes, then give its end."""
        await asyncio.sleep(float(self.fleet.state(self.name).get("slow", 0.0)))
        return await self.look(handle.step_id, step)

    async def look(self, step_id: str, step: Step) -> Progress:
        """Say what a step id left behind."""
        self.reachable()
        record = self.fleet.folder / self.name / "steps" / f"{step_id}.json"
        boot = self.fleet.state(self.name)["boot_id"]
        if not record.exists():
            return Progress(attach=Attach.ABSENT, boot_id=boot)
        left = json.loads(record.read_text())
        if left.get("forbidden"):
            return Progress(attach=Attach.FORBIDDEN, boot_id=boot)
        if left["exit"] is None:
            return Progress(attach=Attach.LOST, boot_id=boot)
        if left.get("rebooted"):
            return Progress(attach=Attach.REBOOTED, boot_id=boot)
        reply = Reply(step=step.name, exit_code=left["exit"], stderr=left["stderr"])
        return Progress(attach=Attach.ENDED, reply=reply, boot_id=boot)

    async def forbid(self, step_id: str, step: Step) -> Progress:
        """Leave a tombstone where the step has left nothing yet, then look."""
        self.reachable()
        record = self.fleet.folder / self.name / "steps" / f"{step_id}.json"
        with self.fleet.locked(self.name):
            if not record.exists():
                _write(record, {"forbidden": True})
        return await self.look(step_id, step)

    async def cancel(self, handle: Handle) -> None:
        """Do nothing: a simulated step is over as soon as it began."""

    async def close(self) -> None:
        """Close the session."""
