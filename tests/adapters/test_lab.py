"""The lab is what it claims to be: real hosts, real apt, real reboots, and nothing left of it afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lab import Lab, LabError, Layout
from lab.beside import free_octet, require_real_hosts
from lab.cgroups import MOUNTS
from lab.process import Recorded, children
from lab.startup import running

pytest_plugins = ["lab.fixtures"]
pytestmark = pytest.mark.lab

UPGRADE = (
    "sudo apt-get -qq update </dev/null && "
    "sudo DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get -qq -y install shopfront </dev/null"
)
ERROR_SHARE = (
    'sum by (instance) (rate(http_requests_total{code=~"5.."}[5s])) / sum by (instance) (rate(http_requests_total[5s]))'
)


def ssh(lab: Lab, host: str, command: str, patience: int = 5) -> subprocess.CompletedProcess[str]:
    words = lab.ssh_command(host, command)
    words[1:1] = ["-o", f"ConnectTimeout={patience}"]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL)


@pytest.fixture
def host(lab: Lab) -> Iterator[str]:
    """A host that a test may break."""
    lab.repository.replace({})
    yield lab.hosts[0].name
    lab.restore(lab.hosts[0].name)


def test_hosts_are_spread_over_zones_and_described_as_ansible_does(lab: Lab) -> None:
    inventory = json.loads(Path(lab.about["inventory"]).read_text())
    names = {host.name for host in lab.hosts}
    assert set(inventory["web"]["hosts"]) == names == set(inventory["_meta"]["hostvars"])
    zones = {name: {*inventory[name]["hosts"]} for name in ("az_a", "az_b", "az_c")}
    assert set.union(*zones.values()) == names
    assert inventory["_meta"]["hostvars"]["web-01"]["ansible_host"] == lab.host("web-01").loopback
    assert lab.about["kind"] == "real"


def test_ssh_checks_the_key_that_the_host_was_born_with(lab: Lab, host: str) -> None:
    login = ssh(lab, host, "hostname && sudo -n id -u")
    assert login.stdout.split() == [host, "0"], login.stderr
    lab.change_host_key(host)
    assert "Host key verification failed" in ssh(lab, host, "true").stderr


def test_a_good_release_brings_a_new_dependency_and_the_old_one_leaves_the_index(lab: Lab, host: str) -> None:
    assert lab.versions(host)["shopfront"] == "1.0.0-1"
    lab.publish("v2")
    upgraded = ssh(lab, host, UPGRADE)
    assert upgraded.returncode == 0, upgraded.stderr
    new = "1.0.0-1+deb12u1"
    assert {lab.versions(host)[name] for name in ("shopfront", "libshop", "shop-tls")} == {new}
    offered = ssh(lab, host, "apt-cache madison shopfront").stdout
    assert new in offered
    assert "1.0.0-1 " not in offered
    advisory = json.loads((lab.advisories / "DLA-LAB-0001.json").read_text())
    assert advisory["affected"][0]["ranges"][0]["events"][-1] == {"fixed": new}


def test_a_bad_release_installs_cleanly_and_prometheus_sees_its_errors(lab: Lab, host: str) -> None:
    lab.publish("v3")
    assert ssh(lab, host, UPGRADE).returncode == 0
    assert lab.versions(host)["shopfront"] == "1.0.0-1+deb12u2"

    def bad() -> set[str]:
        return {row["metric"]["instance"] for row in lab.prometheus(f"{ERROR_SHARE} > 0.2")}

    lab.eventually("errors of the bad release in Prometheus", 30, lambda: bad() == {host})


def test_a_release_can_want_a_reboot_and_a_reboot_is_one(lab: Lab, host: str) -> None:
    lab.publish("v4")
    assert ssh(lab, host, UPGRADE).returncode == 0
    assert "shopfront" in ssh(lab, host, "cat /run/reboot-required.pkgs").stdout
    before = lab.boot_id(host)
    ssh(lab, host, "sudo systemctl reboot")
    lab.eventually("the host goes down", 20, lambda: lab.status()["hosts"][host]["power"] != "on")
    lab.ready(host)
    assert lab.boot_id(host) != before
    assert ssh(lab, host, "test -e /run/reboot-required").returncode == 1
    assert lab.versions(host)["shopfront"] == "1.0.0-1+deb12u3"


def test_a_release_can_fail_half_way(lab: Lab, host: str) -> None:
    lab.publish("v5")
    assert ssh(lab, host, UPGRADE).returncode == 100
    assert lab.versions(host)["shopfront"] == "1.0.0-1+deb12u4 [iF]"


def test_a_host_that_is_cut_off_is_silent_until_it_is_healed(lab: Lab, host: str) -> None:
    lab.cut(host)
    assert "timed out" in ssh(lab, host, "true", patience=1).stderr
    lab.eventually("Prometheus misses it", 20, lambda: lab.prometheus(f'up{{instance="{host}"}} == 0'))
    lab.heal(host)
    lab.ready(host, within=20)
    lab.cut(host, refuse=True)
    assert "reset" in ssh(lab, host, "true").stderr
    lab.heal(host)


def test_power_disk_and_a_new_start(lab: Lab, host: str) -> None:
    lab.fill_disk(host)
    assert "No space left" in ssh(lab, host, "sudo dd if=/dev/zero of=/var/tmp/big bs=1M count=1").stderr
    lab.free_disk(host)
    assert ssh(lab, host, "sudo dd if=/dev/zero of=/var/tmp/big bs=1M count=1").returncode == 0
    ssh(lab, host, "sudo poweroff")
    lab.eventually("off", 20, lambda: lab.status()["hosts"][host]["power"] == "off")
    with pytest.raises(LabError, match="is off"):
        lab.versions(host)
    lab.on(host)
    lab.ready(host)
    assert ssh(lab, host, "test -e /var/tmp/big").returncode == 0
    lab.restore(host)
    assert ssh(lab, host, "test -e /var/tmp/big").returncode == 1


def test_hosts_cannot_reach_the_machine_under_them(lab: Lab, host: str) -> None:
    assert "Read-only" in lab.run(host, ["sh", "-c", "echo 1 > /proc/sys/kernel/panic"]).stderr
    assert lab.run(host, ["ip", "-o", "link"]).stdout.count("\n") == 2
    assert {int(pid) for pid in lab.run(host, ["pgrep", "-f", "lab.keeper"]).stdout.split()} == set()


class Small:
    """A second lab, driven by the command line, that a test may interrupt."""

    def __init__(self, directory: Path, octet: int) -> None:
        self.layout = Layout.default(directory, octet)
        self.environment = os.environ | {
            "PATCHING_LAB_DIR": str(directory),
            "PATCHING_LAB_OCTET": str(octet),
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "lab", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, env=self.environment, stdout=pipe, stderr=pipe, text=True)

    def __call__(self, *words: str) -> str:
        process = self.start(*words)
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        return out


@pytest.fixture
def small(tmp_path: Path, lab: Lab) -> Iterator[Small]:
    octet = free_octet((lab.layout.octet - 80) // 10)
    require_real_hosts(Layout.default(tmp_path / "run", octet), hosts=2)
    small = Small(tmp_path / "run", octet)
    yield small
    small("down")


def processes() -> set[int]:
    return {int(path.name) for path in Path("/proc").glob("[0-9]*")}


def family(root: int) -> set[int]:
    """One process with all that come from it."""
    return {root}.union(*(family(child) for child in children(root)))


def namespaces(pids: set[int]) -> set[str]:
    """The namespaces that some processes are in."""
    found = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/ns").glob("*"):
            with suppress(OSError):
                found.add(str(link.readlink()))
    return found


def test_down_leaves_no_process_mount_or_namespace(small: Small) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    small("up", "--hosts", "2")
    assert "2 real hosts" in small("up", "--hosts", "2"), "running twice works"
    outer = Recorded.read(small.layout.path("outer.pid"))
    assert outer is not None
    made = namespaces(family(outer.pid)) - namespaces({os.getpid()})
    assert len(made) > 10
    there = processes()  # whoever comes later, for another lab, may get the number of a namespace that is gone
    small("down")
    assert not made & namespaces(there)
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert not any(list(root.glob(small.layout.identity)) for root in MOUNTS)
    assert not list(small.layout.directory.glob("*.pid"))
    assert "no lab was up" in small("down"), "running twice works"


def test_an_interrupted_start_leaves_nothing_that_the_next_cannot_clean(small: Small) -> None:
    interrupted = small.start("up", "--hosts", "2")
    deadline = time.monotonic() + 60
    while not running(small.layout):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    interrupted.send_signal(signal.SIGKILL)
    interrupted.communicate()
    first = Recorded.read(small.layout.path("keeper.pid"))
    assert first is not None
    small("down")
    assert not first.alive()
    small("up", "--hosts", "2")
    small.layout.path("keeper.pid").unlink()
    assert "2 real hosts" in small("up", "--hosts", "2")


def test_a_start_that_nobody_wrote_down_does_not_happen(small: Small) -> None:
    argv = [sys.executable, "-S", "-m", "lab.keeper", str(small.layout.directory), "99"]
    alone = subprocess.run(argv, env=small.environment, stdin=subprocess.DEVNULL, check=False, timeout=20)
    assert alone.returncode == 1
