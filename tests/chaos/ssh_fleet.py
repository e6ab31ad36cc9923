"""The fleet of a run on real SSH servers: versions are files, a step is a script that counts and logs itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from chaos.servers import ADDRESS, STATE, Machine, Machines
from patching.change import Patch, Phase, Reply, Step
from patching.channels.base import Channel
from patching.channels.ssh import SshChannel
from patching.drivers.base import PatchDriver
from patching.drivers.simulated import SimulatedDriver
from patching.target import Snapshot, Target

READ = """\
cd {here} || exit 1
printf '{{"installed": {{'; sep=
for f in installed/*; do printf '%s"%s": "%s"' "$sep" "${{f#*/}}" "$(cat "$f")"; sep=', '; done
required=false; [ -e reboot_required ] && required=true
printf '}}, "offers": %s, "boot_id": "%s", "reboot_required": %s}}\\n' \\
  "$(cat offers.json)" "$(cat /proc/sys/kernel/random/boot_id)" $required
"""
SET = """\
cd {here} || exit 1
was=$(cat installed/{name} 2>/dev/null)
echo "$(date +%s.%N) {what} +" >> {log}
sleep {pace}
printf -- '-\\t%s\\t%s\\t%s\\n' {name} "$was" {to} >> acts.log
echo {to} > new-{name}
shop=$(cat installed/shop); [ {name} != shop ] || shop={to}
versions=$(for f in installed/*; do [ "$f" = installed/{name} ] || cat "$f"; done | sort -u)
broken=; [ "${{versions:-{to}}}" = {to} ] || broken=yes
[ ! -e bad ] || [ "$shop" = 1.0 ] || broken=yes
[ -n "$broken" ] || echo "$(date +%s.%N) broken -" >> {log}
mv new-{name} installed/{name}
[ -z "$broken" ] || echo "$(date +%s.%N) broken +" >> {log}
[ {name} != kernel ] || touch reboot_required
echo "$(date +%s.%N) {what} -" >> {log}
"""
REBOOT = """\
cd {here} || exit 1
required=False; [ -e reboot_required ] && required=True
echo "$(date +%s.%N) reboot +" >> {log}
printf -- '-\\treboot\\t%s\\t\\n' $required >> acts.log
rm -f reboot_required
echo off > {power}
sleep 60
"""
SERVICE = """\
cd {folder}/"$PATCHING_TARGET" || exit 1
if [ "$1" = out ]; then echo "$(date +%s.%N) out +" >> "$(cat log)"; touch out; sleep {pace}
else sleep {pace}; rm -f out; echo "$(date +%s.%N) out -" >> "$(cat log)"; fi
"""
SMOKE = '[ ! -e {here}/bad ] || [ "$(cat {here}/installed/shop)" = 1.0 ]\n'


class ScriptDriver(SimulatedDriver):
    """The simulated driver, whose steps are scripts on a real host."""

    def __init__(self, fleet: SshFleet) -> None:
        self.fleet = fleet

    def probe(self, target: Target, wanted: Sequence[Patch], replies: Mapping[str, Reply]) -> list[Step]:
        return [self._scripted(target, step) for step in super().probe(target, wanted, replies)]

    def steps(
        self, target: Target, phase: Phase, before: Snapshot, now: Snapshot, patches: Sequence[Patch]
    ) -> list[Step]:
        return [self._scripted(target, step) for step in super().steps(target, phase, before, now, patches)]

    def undo(self, target: Target, now: Snapshot, patches: Sequence[Patch]) -> list[Step]:
        return [self._scripted(target, step) for step in super().undo(target, now, patches)]

    def _scripted(self, target: Target, step: Step) -> Step:
        machine, pace = self.fleet.machine(target.name), f"{self.fleet.pace:.2f}"
        words = {"here": self.fleet.folder / target.name, "log": machine.log, "power": machine.power, "pace": pace}
        words |= {"name": step.call.get("name", ""), "to": step.call.get("to", "")}
        words["what"] = "undo" if step.phase is Phase.UNDO else "set"
        text = {"read": READ, "reboot": REBOOT, "set": SET}[str(step.call["op"])]
        script = text.format(**{name: quote(str(word)) for name, word in words.items()})
        return step.model_copy(
            update={"channel": "ssh", "call": {"script": script, "sudo": True}, "deadline": min(step.deadline, 20.0)}
        )


class SshFleet:
    """Some of the machines, with the versions of one run."""

    def __init__(self, folder: Path, made: Machines, installed: Mapping[str, str], bad: Sequence[int], pace: float):
        self.folder = folder
        self.made = made
        self.pace = pace
        self.names = [f"web-{number + 1:02d}" for number in range(len(made.machines))]
        folder.mkdir()
        (folder / "service").write_text(SERVICE.format(folder=quote(str(folder)), pace=f"{pace:.2f}"))
        for number, name in enumerate(self.names):
            self._install(folder / name, name, installed, bad=number in bad)

    def _install(self, here: Path, name: str, installed: Mapping[str, str], *, bad: bool) -> None:
        (here / "installed").mkdir(parents=True)
        for component, version in installed.items():
            (here / "installed" / component).write_text(f"{version}\n")
        (here / "offers.json").write_text(json.dumps(dict.fromkeys(installed, "1.1")))
        (here / "smoke").write_text(SMOKE.format(here=quote(str(here))))
        (here / "log").write_text(f"{self.machine(name).log}\n")
        if bad:
            (here / "bad").touch()
        self.machine(name).healed()
        self.machine(name).wiped()
        self.machine(name).log.touch()
        (here / "changes.log").symlink_to(self.machine(name).log)

    def machine(self, name: str) -> Machine:
        """Give the machine that a host is."""
        return self.made.machines[self.names.index(name)]

    def channel(self) -> Channel:
        return SshChannel(self.made.connection, state_dir=STATE)

    def driver(self) -> PatchDriver:
        return ScriptDriver(self)

    def installed(self, name: str) -> Mapping[str, str]:
        return {path.name: path.read_text().strip() for path in (self.folder / name / "installed").iterdir()}

    def out(self, name: str) -> bool:
        return (self.folder / name / "out").exists()

    def markers(self, name: str) -> list[str]:
        machine = self.machine(name)
        path = machine.inside(machine.disk / "markers.log")
        return [line.split()[0] for line in path.read_text().splitlines() if line] if path.exists() else []

    def address(self, name: str) -> dict[str, Any]:
        return {"ansible_host": ADDRESS, "ansible_port": self.machine(name).port}

    def policy(self) -> dict[str, str]:
        """Give the commands that the policy names: the service's and the check's."""
        return {"service": f"/bin/sh {self.folder}/service", "smoke": f"/bin/sh {self.folder}/{{name}}/smoke"}

    def trouble(self, name: str, act: str, seconds: float) -> None:
        """Let one fault happen to one machine; it ends by itself."""
        machine = self.machine(name)
        match act:
            case "cut":
                machine.cut_sessions()
            case "sshd-restart":
                machine.restart_service()
            case "reboot":
                machine.reset()
            case "dark":
                machine.go_dark(seconds)
            case "disk-full":
                machine.fill(seconds)
            case _:
                raise AssertionError(f"nobody knows how to {act} a machine")

    def healed(self, name: str) -> None:
        """End every fault of a machine."""
        self.machine(name).healed()
