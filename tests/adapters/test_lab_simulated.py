"""The simulated tier answers like the lab of real hosts, as far as a demo needs it, and says that it is simulated."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab, Layout
from lab.beside import free_octet
from lab.preflight import simulated_problems
from lab.simhost.hosts import marked
from lab.simhost.state import MARK
from lab.simulated import SimulatedLab
from patching.change import Outcome, Patch, Phase, Reply, Step, StepKind
from patching.channels.base import Attach, Session
from patching.channels.ssh import SshChannel
from patching.drivers.apt import AptDriver
from patching.sources.base import Connection
from patching.target import Member, Snapshot, Target

FIRST, SECOND = "1.0.0-1", "1.0.0-1+deb12u1"
APT = "sudo -n apt-get -y -o DPkg::Lock::Timeout=60"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    octet = free_octet(12 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")))
    directory = tmp_path_factory.mktemp("simulated") / "run"
    if problems := simulated_problems(Layout.default(directory, octet), 3):
        pytest.skip("; ".join(map(str, problems)))
    lab = SimulatedLab.up(3, directory=directory, octet=octet)
    yield lab
    lab.down()
    assert not marked(f"{MARK}={directory}".encode())


@pytest.fixture
def host(lab: Lab) -> Iterator[str]:
    lab.repository.replace({})
    yield "web-01"
    lab.restore("web-01")


def ssh(lab: Lab, host: str, command: str) -> subprocess.CompletedProcess[str]:
    words = lab.ssh_command(host, command)
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL)


def channel(lab: Lab) -> SshChannel:
    extra = {"key_file": str(lab.ssh_key), "known_hosts_file": lab.about["known_hosts"]}
    return SshChannel(Connection(id="lab", login="patch", extra=extra))


def target(lab: Lab, host: str) -> Target:
    found = lab.host(host)
    return Target(name=host, labels=found.labels, members=(Member(address=found.loopback, port=found.ssh_port),))


def step(name: str, script: str, **more: object) -> Step:
    call = {"script": script, "sudo": True}
    return Step.model_validate(
        {"name": name, "phase": Phase.APPLY, "kind": StepKind.ACT, "call": call, "deadline": 30.0, **more}
    )


def test_it_says_that_it_is_simulated(lab: Lab) -> None:
    assert lab.simulated
    assert lab.about["kind"] == lab.status()["kind"] == "simulated"
    assert Lab.attach(lab.layout.directory).simulated


def test_there_and_back_with_the_new_dependency(lab: Lab, host: str) -> None:
    lab.publish("v2")
    rehearsal = ssh(lab, host, f"{APT} update && {APT} -s install shopfront").stdout
    assert f"Inst libshop [{FIRST}] ({SECOND} Lab-Security:lab-security [all])" in rehearsal
    assert ssh(lab, host, f"{APT} install shopfront").returncode == 0
    assert {lab.versions(host)[name] for name in ("shopfront", "libshop", "shop-tls")} == {SECOND}
    cached = f"/var/cache/apt/archives/shopfront_{FIRST}_all.deb /var/cache/apt/archives/libshop_{FIRST}_all.deb"
    gone = ssh(lab, host, f"{APT} --allow-downgrades install shopfront={FIRST}")
    assert (gone.returncode, "was not found" in gone.stderr) == (100, True)
    back = ssh(lab, host, f"{APT} --allow-downgrades install {cached} shop-tls-")
    assert back.returncode == 0, back.stderr
    assert lab.versions(host) == {"libshop": FIRST, "shop-conf": "1.0-1", "shop-tools": "1.0-1", "shopfront": FIRST}


def test_a_bad_release_answers_errors(lab: Lab, host: str) -> None:
    lab.publish("v3")
    assert ssh(lab, host, f"{APT} update && {APT} install shopfront").returncode == 0

    def errors() -> float:
        found = lab.prometheus(f'http_requests_total{{code="500",instance="{host}"}}')
        return float(found[0]["value"][1]) if found else 0

    lab.eventually("errors", 15, lambda: errors() > 0)


async def test_the_products_channel_runs_a_step_once_and_sees_a_reboot(lab: Lab, host: str) -> None:
    session = await channel(lab).open(target(lab, host))
    try:
        once = step("once", 'echo "$(hostname) $(cat /etc/hostname)"; exit 3')
        for _ in range(2):
            progress = await session.wait(await session.start("step-once", once), once)
            assert progress.reply is not None
            assert (progress.reply.exit_code, progress.reply.stdout) == (3, f"{host} {host}\n")
        assert (lab.layout.path("hosts") / host / "var/lib/patching/markers.log").read_text().count("step-once") == 1
        reboot = step("reboot", "systemctl reboot; sleep 30", expects_reboot=True)
        before = lab.boot_id(host)
        progress = await asyncio.wait_for(session.wait(await session.start("step-reboot", reboot), reboot), 30)
        assert progress.attach is Attach.REBOOTED
        assert lab.boot_id(host) != before
    finally:
        await session.close()


async def reading(session: Session, driver: AptDriver, where: Target, wanted: list[Patch]) -> Snapshot:
    replies: dict[str, Reply] = {}
    while steps := driver.probe(where, wanted, replies):
        for asked in steps:
            replies[asked.name] = await session.read(asked)
    return driver.parse(where, wanted, replies)


async def acting(session: Session, steps: list[Step]) -> None:
    for number, acted in enumerate(steps):
        progress = await session.wait(await session.start(f"{acted.name}-{number}", acted), acted)
        assert progress.reply is not None
        assert progress.reply.exit_code == 0, progress.reply


async def test_the_apt_driver_goes_there_and_back(lab: Lab, host: str) -> None:
    lab.publish("v2")
    driver, where = AptDriver(), target(lab, host)
    session = await channel(lab).open(where)
    try:
        wanted = [Patch(component="shopfront:all", before=FIRST, after=SECOND)]
        before = await reading(session, driver, where, wanted)
        assert [refusal.message for refusal in driver.preflight(before)] == []
        assert before.offers["shopfront:all"][0].version == SECOND
        patches = driver.transaction(before, wanted)
        assert isinstance(patches, list)
        assert {patch.component: patch.before for patch in patches} == {
            "shopfront:all": FIRST, "libshop:all": FIRST, "shop-tls:all": None,
        }  # fmt: skip
        assert driver.undoable(before, patches).possible
        for phase in (Phase.PREPARE, Phase.APPLY, Phase.ACTIVATE):
            await acting(
                session, driver.steps(where, phase, before, await reading(session, driver, where, []), patches)
            )
        after = await reading(session, driver, where, [])
        assert driver.verify(before, after, patches).outcome is Outcome.APPLIED
        await acting(session, driver.undo(where, after, patches))
        assert driver.verify_undo(await reading(session, driver, where, []), patches).outcome is Outcome.UNDONE
        assert lab.versions(host)["shopfront"] == FIRST
    finally:
        await session.close()


def test_faults(lab: Lab, host: str) -> None:
    lab.publish("v5")
    assert ssh(lab, host, f"{APT} update && {APT} install shopfront").returncode == 100
    assert lab.versions(host)["shopfront"] == "1.0.0-1+deb12u4 [iF]"
    lab.fill_disk(host)
    full = ssh(lab, host, "df -Pk /").stdout.split()
    assert full[-2] == "100%"
    lab.change_host_key(host)
    assert "Host key verification failed" in ssh(lab, host, "true").stderr
    lab.restore(host)
    assert ssh(lab, host, "hostname").stdout.strip() == host
    lab.cut(host, refuse=True)
    assert ssh(lab, host, "true").returncode == 255
    lab.heal(host)
    assert ssh(lab, host, "true").returncode == 0


def test_nothing_of_the_machine_is_touched(lab: Lab, host: str) -> None:
    ssh(lab, host, "touch /etc/from-a-simulated-host /var/lib/from-a-simulated-host")
    assert not Path("/etc/from-a-simulated-host").exists()
    assert (lab.layout.path("hosts") / host / "etc/from-a-simulated-host").exists()
