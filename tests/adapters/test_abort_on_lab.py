"""Abort at once on real hosts (S8): a download is ended with all its processes, a dpkg that installs is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.lab_fleet import LabFleet
from lab import Lab
from patching.ledger.entry import EntryKind
from patching.rollout import control
from patching.rollout.approval import approval_request, decide

pytest_plugins = ["lab.fixtures"]
pytestmark = pytest.mark.lab

V1, V2 = "1.0.0-1", "1.0.0-1+deb12u1"
WITHIN = 60.0
"""Far above what cancelling takes, far below what the download would take (its connection never answers)."""
MUTE_PROXY = """
cat > /root/mute.py <<'END'
import socket
s = socket.create_server(("127.0.0.1", 3142))
kept = []
open("/run/mute", "w").close()
while True:
    kept.append(s.accept())
    open("/run/asked", "w").close()
END
systemd-run -q --unit=mute python3 /root/mute.py
until test -e /run/mute; do sleep 0.05; done
echo 'Acquire::http::Proxy "http://127.0.0.1:3142"; Acquire::http::Timeout "600";' > /etc/apt/apt.conf.d/99mute
"""
HALF_WAY = """
cat > /root/wait.sh <<'END'
[ "$DPKG_HOOK_ACTION" = unpack ] && [ -e /root/slow ] || exit 0
rm /root/slow; touch /run/half-way
until [ -e /run/go-on ]; do sleep 0.1; done
END
echo 'post-invoke=sh /root/wait.sh' > /etc/dpkg/dpkg.cfg.d/slow
touch /root/slow
"""

Make = Callable[..., LabFleet]


@pytest.fixture
def fleet_of(lab: Lab, tmp_path: Path) -> Make:
    def make(host: str, **spec: Any) -> LabFleet:
        lab.repository.replace({})
        lab.restore(host)
        lab.publish("v2")
        return LabFleet(lab, tmp_path / "fleet", [host], **spec)

    return make


def group_of(fleet: LabFleet, host: str, step: str) -> list[str]:
    """Give the commands of a step's process group that are still alive on the host."""
    leader = f"$(sed -n s/^pid=//p /var/lib/patching/steps/{step}/started)"
    return fleet.shell(host, f"ps -o stat=,args= -s {leader} | grep -v '^Z' || true").splitlines()


async def test_download_is_ended_with_all_its_processes_and_the_host_can_be_planned_anew(fleet_of: Make) -> None:
    host = "web-09"
    fleet = fleet_of(host)
    await fleet.plan()
    # As where the host was away while downloads were made ahead: its job has to fetch what is planned.
    approval_request(fleet.site, fleet.rollout, "run-1")
    decide(fleet.site, fleet.rollout, "run-1", [])
    await fleet.gate(1)
    fleet.shell(host, MUTE_PROXY)
    applying = asyncio.create_task(fleet.apply(1))
    await fleet.on_host(host, "test -e /run/asked")
    (step,) = fleet.markers(host)
    assert any("apt-get" in line for line in group_of(fleet, host, step))
    assert any("/usr/lib/apt/methods/http" in line for line in group_of(fleet, host, step))

    said = control.abort(fleet.ledger, fleet.rollout, "eva", "wrong fleet", now=True).sentence
    assert "is cancelled" in said
    await asyncio.wait_for(applying, WITHIN)
    assert group_of(fleet, host, step) == []
    fleet.shell(host, "! pgrep -x apt-get && ! pgrep -f '[a]pt/methods/http'")
    fleet.shell(host, "flock -n /var/lib/patching/host.lock true")
    (ended,) = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.STEP_OUTCOME], target=host)
    assert (ended.body["attach"], ended.body["ok"], ended.body["exit_code"]) == ("ended", False, 143)
    assert (fleet.outcomes(), fleet.state, fleet.versions()) == ({host: "skipped"}, "aborted", {host: V1})
    assert fleet.ledger.leases() == []
    assert fleet.ledger.intents() == []

    fleet.shell(host, "rm /etc/apt/apt.conf.d/99mute")
    fleet.new_run("run-2")
    await fleet.begin()
    for wave in fleet.frozen.waves:
        await fleet.wave(wave.index)
    assert (await fleet.finish()).good
    assert fleet.versions() == {host: V2}


async def test_dpkg_in_mid_transaction_is_let_finish_and_its_host_told_as_changed(fleet_of: Make) -> None:
    host = "web-10"
    fleet = fleet_of(host)
    await fleet.begin()
    await fleet.gate(1)
    fleet.shell(host, HALF_WAY)
    applying = asyncio.create_task(fleet.apply(1))
    await fleet.on_host(host, "test -e /run/half-way", within=60)
    step = fleet.markers(host)[-1]

    said = control.abort(fleet.ledger, fleet.rollout, "eva", "wrong fleet", now=True).sentence
    assert f"{host} had begun and ends" in said
    # The worker has looked at the ledger again, and once more, since the abort was written.
    await fleet.eventually("the lease is prolonged twice", prolonged(fleet, times=2))
    assert any("dpkg" in line for line in group_of(fleet, host, step))
    assert not applying.done()

    fleet.shell(host, "touch /run/go-on")
    await asyncio.wait_for(applying, WITHIN)
    assert fleet.shell(host, "dpkg --audit") == ""
    assert (fleet.outcomes(), fleet.state, fleet.versions()) == ({host: "applied"}, "aborted", {host: V2})
    assert fleet.begun_twice_or_never(host) == []
    assert fleet.ledger.leases() == []


def prolonged(fleet: LabFleet, times: int) -> Callable[[], bool]:
    """Say whether the one lease was prolonged so often since now."""
    seen: set[Any] = set()

    def looked() -> bool:
        seen.update(lease.expires_at for lease in fleet.ledger.leases())
        return len(seen) > times

    return looked
