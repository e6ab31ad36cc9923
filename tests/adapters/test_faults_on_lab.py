"""Faults on real hosts, without Airflow: what is unfit is left out, what breaks is settled, nothing runs twice.

docs/reference/faults.md maps every fault to its test (S3–S6, F3, F8, F10).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.lab_fleet import MEASURED, SLOW_HOOK, LabFleet
from lab import Lab
from patching.rollout.answers import GateState, VerdictName
from patching.rollout.control import resume
from unit.rollout.test_crash_points import POINTS

pytest_plugins = ["lab.fixtures"]
pytestmark = pytest.mark.lab

V1, V2 = "1.0.0-1", "1.0.0-1+deb12u1"
HOSTS = [f"web-{number:02d}" for number in range(1, 9)]
WORKER = Path(__file__).with_name("crashing_lab_worker.py")
ONE_AT_A_TIME = {"maxUnavailable": 1}
LONG_DPKG = """
cat > /root/slow.sh <<'END'
[ "$DPKG_HOOK_ACTION" = unpack ] && [ -e /root/slow ] || exit 0
rm /root/slow; sync; touch /run/half-way; sleep 300
END
echo 'post-invoke=sh /root/slow.sh' > /etc/dpkg/dpkg.cfg.d/slow
touch /root/slow
"""

Make = Callable[..., LabFleet]


@pytest.fixture
def fleet_of(lab: Lab, tmp_path: Path) -> Make:
    """Make a fleet of hosts that are as new, with a release published; only the hosts asked for are touched."""

    def make(*hosts: str, release: str = "v2", **spec: Any) -> LabFleet:
        lab.repository.replace({})
        lab.restore(*hosts)
        lab.publish(release)
        return LabFleet(lab, tmp_path / "fleet", hosts, **spec)

    return make


def power_off(lab: Lab, host: str) -> None:
    """Take the power away; a router says at once that nobody is there, so that no test waits for a silent host."""
    lab.off(host)
    lab.cut(host, refuse=True)


def power_on(lab: Lab, host: str) -> None:
    lab.heal(host)
    lab.on(host)
    lab.ready(host)


async def waves(fleet: LabFleet) -> None:
    for wave in fleet.frozen.waves:
        assert await fleet.wave(wave.index) is VerdictName.PROMOTE


# What the plan leaves out -------------------------------------------------------------------------------------------


async def test_hosts_out_of_reach_are_left_out_with_the_reason_and_the_other_is_patched(
    fleet_of: Make,
) -> None:
    """S1: down, key refused, host key changed, host key unknown: each is a state of its own."""
    down, refuses, changed, unknown, good = hosts = ["web-01", "web-02", "web-03", "web-04", "web-05"]
    fleet = fleet_of(*hosts)
    power_off(fleet.lab, down)
    fleet.shell(refuses, "rm /home/patch/.ssh/authorized_keys")
    fleet.lab.change_host_key(changed)
    known = fleet.known_hosts.read_text().splitlines(keepends=True)
    fleet.known_hosts.write_text("".join(line for line in known if unknown not in line))

    await fleet.begin()
    assert fleet.excluded() == {
        down: "offline", refuses: "login_refused", changed: "host_key_changed", unknown: "host_key_unknown",
    }  # fmt: skip
    assert "offline" in fleet.why(down)
    assert "authorized_keys" in fleet.why(refuses)
    assert "has changed" in fleet.why(changed)
    await waves(fleet)
    closing = await fleet.finish()
    assert closing.good, closing.sentence
    power_on(fleet.lab, down)
    assert fleet.versions() == {**dict.fromkeys(hosts, V1), good: V2}
    assert [name for name in hosts if fleet.markers(name)] == [good]

    # The fingerprint is the host's own, and the printed command accepts it: the next plan takes the host in.
    fingerprint = fleet.shell(unknown, "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").split()[1]
    assert fingerprint in fleet.why(unknown)
    accept = fleet.why(unknown).split("accept it with: ")[1]
    await asyncio.to_thread(subprocess.run, ["sh", "-c", accept], check=True, capture_output=True)
    fleet.new_run("run-2", limit_to=(unknown,))
    await fleet.plan()
    assert [item.target.name for item in fleet.frozen.targets] == [unknown]


async def test_unfit_hosts_are_left_out_with_the_remedy_and_the_other_is_patched(fleet_of: Make) -> None:
    """S3: full disk, dpkg half-way, apt locked by somebody else, package held."""
    full, half, locked, held, good = hosts = ["web-06", "web-07", "web-08", "web-01", "web-02"]
    fleet = fleet_of(*hosts)
    fleet.lab.fill_disk(full, leave_kib=20_000)
    fleet.shell(half, "cd /var/cache/apt/archives && dpkg --unpack shop-tools_*.deb")
    hold = "import fcntl, time; f = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(f, fcntl.LOCK_EX)"
    script = f"{hold}\nopen('/run/held', 'w').close()\ntime.sleep(600)\n"
    fleet.lab.run(locked, ["sh", "-c", "cat > /root/hold.py"], stdin=script, check=True)
    fleet.shell(locked, "systemd-run -q --unit=other-apt python3 /root/hold.py")
    await fleet.on_host(locked, "test -e /run/held")
    fleet.shell(held, "apt-mark hold shopfront libshop")

    await fleet.begin()
    assert fleet.excluded() == {full: "disk_space", half: "half_installed", locked: "apt_locked", held: "held"}
    assert "MB free" in fleet.why(full)
    assert "dpkg --configure -a" in fleet.why(half)
    assert "python3" in fleet.why(locked)
    assert "shopfront" in fleet.why(held)
    await waves(fleet)
    closing = await fleet.finish()
    assert closing.good, closing.sentence
    assert fleet.versions() == {**dict.fromkeys(hosts, V1), good: V2}
    assert [name for name in hosts if fleet.markers(name)] == [good]


# Whole rollouts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hosts", [["web-01"], ["web-02", "web-03", "web-04"]], ids=["one", "three"])
async def test_fleet_of_one_and_of_three_is_patched_on_real_metrics(fleet_of: Make, hosts: list[str]) -> None:
    """S4, S5: with so few hosts the comparison is with before, or with few controls, and it is still made."""
    soaks = {"waves": [{"canary": {"count": 1}, "soak": "5s"}, {"size": "100%", "soak": "5s"}]}
    fleet = fleet_of(*hosts, verify=MEASURED, rollout=soaks)
    await fleet.begin()
    await waves(fleet)
    closing = await fleet.finish()
    assert closing.good, closing.sentence
    assert fleet.state == "completed"
    assert set(fleet.versions().values()) == {V2}
    assert fleet.twice() == []
    assert fleet.ledger.verify() == []


async def test_host_that_goes_down_between_approval_and_its_wave_is_offline_and_the_others_are_patched(
    fleet_of: Make,
) -> None:
    fleet = fleet_of("web-05", "web-06", "web-07", onFailure={"retry": {"times": 0}})
    await fleet.begin()
    gone = next(item.target.name for item in fleet.frozen.targets if item.wave == 2)
    prepared = fleet.markers(gone)
    power_off(fleet.lab, gone)
    await waves(fleet)
    await fleet.finish()
    assert fleet.outcomes()[gone] == "offline"
    assert sorted(fleet.outcomes().values()) == ["applied", "applied", "offline"]
    power_on(fleet.lab, gone)
    assert fleet.versions()[gone] == V1
    assert fleet.markers(gone) == prepared
    assert fleet.ledger.leases() == []


async def test_postinst_that_fails_is_undone_quarantined_and_reaches_no_other_host(fleet_of: Make) -> None:
    """S6: the next plan leaves the quarantined host out."""
    fleet = fleet_of("web-03", "web-08", release="v5")
    await fleet.begin()
    canary, other = fleet.canary(), next(item.target.name for item in fleet.frozen.targets if item.wave == 2)
    assert await fleet.wave(1) is VerdictName.UNDO
    assert (await fleet.gate(2)).state is GateState.REFUSED
    closing = await fleet.finish()
    assert not closing.good
    assert fleet.state == "undone"
    assert fleet.outcomes()[canary] == "failed"
    assert fleet.versions() == {canary: V1, other: V1}
    (kept,) = fleet.ledger.quarantines(now=fleet.clock())
    assert kept.target == canary
    assert "dpkg did not finish: shopfront is half-configured" in kept.reason
    assert {item.step["phase"] for item in fleet.intents(other)} <= {"prepare"}
    assert fleet.begun_twice_or_never(canary) == []
    fleet.new_run("run-2")
    await fleet.plan()
    assert fleet.excluded() == {canary: "quarantined"}


# Faults in mid-step -------------------------------------------------------------------------------------------------


async def test_ledger_that_is_gone_in_mid_wave_lets_nothing_new_begin_and_the_rollout_completes_when_it_is_back(
    fleet_of: Make,
) -> None:
    """F3: no intent, no act."""
    waves_of = [{"canary": {"count": 1}}, {"size": "100%"}]
    fleet = fleet_of("web-01", "web-02", "web-03", hooks=[SLOW_HOOK], rollout={**ONE_AT_A_TIME, "waves": waves_of})
    await fleet.begin()
    await fleet.wave(1)
    await fleet.gate(2)
    two = [item.target.name for item in fleet.frozen.targets if item.wave == 2]
    prepared = {name: fleet.markers(name) for name in two}
    applying = asyncio.create_task(fleet.apply(2))
    first = await fleet.eventually(
        "a step of the wave runs", lambda: next((name for name in two if fleet.markers(name) != prepared[name]), None)
    )
    database = fleet.folder / "ledger.sqlite"
    database.rename(fleet.folder / "away")
    running = fleet.markers(first)[-1]
    await fleet.on_host(first, f"test -e /var/lib/patching/steps/{running}/exit")
    said = "the ledger is unavailable: nothing new is launched"
    await fleet.eventually("it was tried again", lambda: sum(said in line for line in fleet.said) >= 3)
    assert {name: fleet.markers(name)[len(prepared[name]) :] for name in two} == {
        name: [running] if name == first else [] for name in two
    }
    assert not applying.done()
    (fleet.folder / "away").rename(database)
    await applying
    assert (await fleet.judge(2)).verdict is VerdictName.PROMOTE
    closing = await fleet.finish()
    assert closing.good, closing.sentence
    assert set(fleet.versions().values()) == {V2}
    assert fleet.twice() == []
    assert fleet.ledger.verify() == []


async def test_connection_cut_in_mid_step_is_settled_by_the_step_id_and_nothing_runs_twice(fleet_of: Make) -> None:
    """F8: the step goes on without us; its recorded end is read after the cut."""
    fleet = fleet_of("web-04", hooks=[SLOW_HOOK])
    host = "web-04"
    await fleet.begin()
    await fleet.gate(1)
    prepared = fleet.markers(host)
    applying = asyncio.create_task(fleet.apply(1))
    await fleet.eventually("the hook runs", lambda: fleet.markers(host) != prepared)
    running = fleet.markers(host)[-1]
    fleet.lab.cut(host, refuse=True)
    await fleet.on_host(host, f"test -e /var/lib/patching/steps/{running}/exit")
    assert fleet.markers(host) == [*prepared, running]
    fleet.lab.heal(host)
    await applying
    assert (await fleet.judge(1)).verdict is VerdictName.PROMOTE
    assert (await fleet.finish()).good
    assert fleet.versions() == {host: V2}
    assert fleet.begun_twice_or_never(host) == []


async def test_power_lost_in_mid_install_is_mended_from_what_a_probe_finds_under_a_new_step_id(fleet_of: Make) -> None:
    """F8: the interrupted step is lost, never success; the same id never begins again."""
    host = "web-05"
    fleet = fleet_of(host)
    await fleet.begin()
    await fleet.gate(1)
    fleet.shell(host, LONG_DPKG)
    boot = fleet.lab.boot_id(host)
    applying = asyncio.create_task(fleet.apply(1))
    await fleet.on_host(host, "test -e /run/half-way", within=60)
    assert "[iU]" in fleet.versions()[host]
    fleet.lab.reset(host)
    await applying
    assert fleet.lab.boot_id(host) != boot
    assert fleet.outcomes() == {host: "applied"}
    installs = [item for item in fleet.intents(host) if item.step["name"] == "install"]
    assert sorted(item.generation for item in installs) == [0, 1]
    lost = fleet.ledger.find(fleet.rollout, f"outcome:{min(installs, key=lambda item: item.generation).step_id}")
    assert lost is not None
    assert (lost.body["attach"], lost.body["ok"], lost.body["exit_code"]) == ("rebooted", False, None)
    assert (await fleet.judge(1)).verdict is VerdictName.PROMOTE
    assert (await fleet.finish()).good
    assert fleet.versions() == {host: V2}
    assert fleet.begun_twice_or_never(host) == []


async def test_host_that_stays_dark_in_mid_install_is_unknown_opens_nothing_and_is_settled_when_it_is_back(
    fleet_of: Make,
) -> None:
    """F8, S5: unknown is no success and no failure; its lease and its wave stay open."""
    host, other = "web-06", "web-07"
    options = {"options": {"applyTimeout": "8s"}}
    none = {"retry": {"times": 0}}
    fleet = fleet_of(host, other, driver=options, onFailure=none)
    await fleet.begin()
    host = fleet.canary()
    await fleet.gate(1)
    fleet.shell(host, LONG_DPKG)
    applying = asyncio.create_task(fleet.apply(1))
    await fleet.on_host(host, "test -e /run/half-way", within=60)
    power_off(fleet.lab, host)
    await applying
    assert fleet.outcomes()[host] == "unknown"
    assert [lease.target for lease in fleet.ledger.leases()] == [host]
    assert (await fleet.judge(1)).verdict is VerdictName.HOLD
    assert (await fleet.gate(2)).state is GateState.REFUSED
    assert not (await fleet.finish()).good
    power_on(fleet.lab, host)
    resume(fleet.ledger, fleet.rollout, "alice", "the host has power again")
    fleet.new_run("run-2")
    assert (await fleet.discover()).adopted
    await waves(fleet)
    assert (await fleet.finish()).good
    assert set(fleet.outcomes().values()) == {"applied"}
    assert set(fleet.versions().values()) == {V2}
    assert fleet.twice() == []
    assert fleet.ledger.leases() == []


@pytest.mark.parametrize(("point", "host"), list(zip(POINTS, HOSTS, strict=False)))
async def test_worker_killed_at_a_crash_point_leaves_every_step_once_on_the_host(
    fleet_of: Make, point: str, host: str
) -> None:
    """F8: kill -9 of a real worker process; another worker takes over when the lease has run out."""
    fleet = fleet_of(host)
    await fleet.begin()
    await fleet.gate(1)
    fleet.keep()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    worker = await asyncio.create_subprocess_exec(
        sys.executable, str(WORKER), str(fleet.folder), point,
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(worker.communicate(), timeout=90)
    assert worker.returncode == -9, said.decode()
    await fleet.wave(1)
    closing = await fleet.finish()
    assert closing.good, closing.sentence
    assert fleet.state == "completed"
    assert fleet.versions() == {host: V2}
    assert fleet.begun_twice_or_never(host) == []
    assert [item.generation for item in fleet.intents(host)] == [0] * len(fleet.intents(host))
    assert fleet.ledger.verify() == []
    await fleet.until_free()
