"""Driver apt over channel ssh on a real Debian host with real apt (L2, S3–S6, F8, F10)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from lab import Lab, LabError
from patching.change import Outcome, Patch, Phase, Refusal, Reply, Step
from patching.channels.base import Attach, Session
from patching.channels.ssh import SshChannel
from patching.drivers.apt import AptDriver
from patching.drivers.apt_options import AptOptions
from patching.drivers.apt_shell import CLOSURE_CHANGED, STORE, STORE_DAMAGED
from patching.errors import HostKeyChanged, LoginRefused
from patching.sources.base import Connection
from patching.target import Member, Snapshot, Target

pytest_plugins = ["lab.fixtures"]
pytestmark = pytest.mark.lab

HOST = "web-01"
V1, V2, V4, V5 = "1.0.0-1", "1.0.0-1+deb12u1", "1.0.0-1+deb12u3", "1.0.0-1+deb12u4"
SHOP_V1 = {"shopfront": V1, "libshop": V1, "shop-conf": "1.0-1", "shop-tools": "1.0-1"}


def connection(lab: Lab) -> Connection:
    extra = {"key_file": str(lab.ssh_key), "known_hosts_file": str(lab.layout.path("known_hosts"))}
    return Connection(id="ssh_lab", login="patch", extra=extra)


class Box:
    """One lab host, seen through driver and channel."""

    def __init__(self, lab: Lab, session: Session, target: Target) -> None:
        self.lab, self.session, self.target = lab, session, target
        self.driver = AptDriver(AptOptions.model_validate({"refreshAfter": "0s", "lockTimeout": "5s"}))

    async def probe(self, wanted: Sequence[Patch] = ()) -> Snapshot:
        replies: dict[str, Reply] = {}
        while steps := self.driver.probe(self.target, wanted, replies):
            for step in steps:
                replies[step.name] = await self.session.read(step)
        return self.driver.parse(self.target, wanted, replies)

    async def run(self, steps: Sequence[Step]) -> list[Reply]:
        """Run steps one after the other up to the first that fails."""
        replies = []
        for step in steps:
            progress = await self.session.wait(await self.session.start(uuid4().hex, step), step)
            assert progress.reply is not None, (step.name, progress)
            replies.append(progress.reply)
            if not progress.reply.ok:
                break
        return replies

    async def phase(self, phase: Phase, before: Snapshot, patches: Sequence[Patch]) -> Snapshot:
        """Carry a phase out and require that it converges."""
        for reply in await self.run(self.driver.steps(self.target, phase, before, before, patches)):
            assert reply.ok, (reply.step, reply.exit_code, reply.stdout, reply.stderr)
        now = await self.probe()
        assert self.driver.steps(self.target, phase, before, now, patches) == []
        return now

    async def plan(self, package: str = "shopfront") -> tuple[Snapshot, list[Patch]]:
        """Want what the security origin offers for a package, and give the whole rehearsed transaction."""
        before = await self.probe()
        offer = before.offers[f"{package}:all"][0]
        wanted = [Patch(component=f"{package}:all", before=before.version(f"{package}:all"), after=offer.version)]
        rehearsed = await self.probe(wanted)
        patches = self.driver.transaction(rehearsed, wanted)
        assert isinstance(patches, list), patches
        return rehearsed, patches

    def shell(self, script: str) -> str:
        """Do something on the host as somebody else would."""
        return self.lab.run(HOST, ["sh", "-c", script], check=True).stdout

    def versions(self) -> dict[str, str]:
        return self.lab.versions(HOST)


def booted_anew(lab: Lab, old: str | None) -> bool:
    try:
        return lab.boot_id(HOST) != old
    except LabError:
        return False


@pytest.fixture
async def box(lab: Lab) -> AsyncIterator[Box]:
    lab.repository.replace({})
    lab.restore(HOST)
    target = Target(name=HOST, members=(Member(address=lab.host(HOST).loopback, port=lab.host(HOST).ssh_port),))
    session = await SshChannel(connection(lab)).open(target)
    yield Box(lab, session, target)
    await session.close()


async def test_a_whole_change_and_its_undo(box: Box) -> None:
    """S3, S4, S6: probe, rehearsal, prepare, apply, verify, undo; the new dependency comes and goes."""
    box.lab.publish("v2")
    before, patches = await box.plan()
    assert before.ecosystem == "Debian:12"
    assert {patch.component: (patch.before, patch.after) for patch in patches} == {
        "shopfront:all": (V1, V2), "libshop:all": (V1, V2), "shop-tls:all": (None, V2),
    }  # fmt: skip
    reasons = {patch.component: patch.reason for patch in patches}
    assert reasons["shop-tls:all"] == reasons["libshop:all"] == "dependency of shopfront"
    assert before.offers["shopfront:all"][0].origins == ("Lab-Security:lab-security",)
    assert before.transaction is not None
    assert before.transaction.download_bytes > 0
    assert [refusal for refusal in box.driver.preflight(before) if refusal.blocking] == []
    undo = box.driver.undoable(before, patches)
    assert (undo.possible, undo.covered, undo.total) == (True, 3, 3)
    assert box.driver.drift({}, before, patches) is None

    now = await box.phase(Phase.PREPARE, before, patches)
    assert box.versions() == SHOP_V1
    now = await box.phase(Phase.APPLY, now, patches)
    now = await box.phase(Phase.ACTIVATE, now, patches)
    result = box.driver.verify(before, now, patches)
    assert (result.outcome, result.active) == (Outcome.APPLIED, True), result.reason
    assert box.versions() == {**SHOP_V1, "shopfront": V2, "libshop": V2, "shop-tls": V2}
    drift = box.driver.drift({}, now, patches)
    assert drift is not None
    assert drift.outcome is Outcome.NOTHING_TO_DO

    for reply in await box.run(box.driver.undo(box.target, now, patches)):
        assert reply.ok, reply
    back = await box.probe()
    assert box.driver.verify_undo(back, patches).outcome is Outcome.UNDONE
    assert box.driver.undo(box.target, back, patches) == []
    assert box.versions() == SHOP_V1


async def test_a_planned_version_that_left_the_index_installs_from_our_store(box: Box) -> None:
    box.lab.publish("v2")
    before, patches = await box.plan()
    await box.phase(Phase.PREPARE, before, patches)
    box.lab.publish("v3")
    now = await box.probe(patches)
    assert now.transaction is not None
    assert now.transaction.error is None
    await box.phase(Phase.APPLY, now, patches)
    assert box.versions()["shopfront"] == V2


async def test_a_planned_version_that_left_the_index_before_it_was_fetched_is_refused(box: Box) -> None:
    box.lab.publish("v2")
    before, patches = await box.plan()
    box.lab.publish("v3")
    box.shell("apt-get update -qq")
    (reply,) = await box.run(box.driver.steps(box.target, Phase.PREPARE, before, before, patches))
    assert reply.exit_code == 44
    assert f"shopfront:all={V2} is in no index any more" in reply.stderr
    assert box.versions() == SHOP_V1


async def test_an_old_version_that_nobody_has_is_said_before_approval(box: Box) -> None:
    """T11: undo is prepared before acting, or its absence is shown."""
    box.lab.publish("v2")
    box.shell("rm -f /var/cache/apt/archives/libshop_*.deb")
    before, patches = await box.plan()
    undo = box.driver.undoable(before, patches)
    assert not undo.possible
    assert f"undo available for 2 of 3: no store, cache, index or archive has libshop:all={V1}" in undo.reason
    now = await box.phase(Phase.PREPARE, before, patches)
    assert f"libshop_{V1}_all.deb.missing" in now.facts["store"]


async def test_the_archive_gives_back_what_every_other_source_lost(box: Box, tmp_path: Path) -> None:
    box.lab.publish("v2")
    box.shell("rm -f /var/cache/apt/archives/*.deb")
    # An archive on the host itself: the first release, as somebody mirrored it.
    box.shell("mkdir -p /srv/archive")
    debs = next(box.lab.layout.cache.glob("debs-*"))
    for name in (f"libshop_{V1}_all.deb", f"shopfront_{V1}_all.deb"):
        write = "import sys; open(sys.argv[1], 'wb').write(bytes.fromhex(sys.stdin.read()))"
        content = (debs / name).read_bytes().hex()
        box.lab.run(HOST, ["python3", "-c", write, f"/srv/archive/{name}"], stdin=content, check=True)
    packages = "".join(
        box.shell(f"dpkg-deb -f /srv/archive/{name}; cd /srv/archive; stat -c 'Size: %s' {name}; "
                  f"echo \"SHA256: $(sha256sum {name} | cut -d' ' -f1)\"; echo Filename: ./{name}; echo")
        for name in (f"libshop_{V1}_all.deb", f"shopfront_{V1}_all.deb")
    )  # fmt: skip
    box.lab.run(HOST, ["sh", "-c", "cat > /srv/archive/Packages"], stdin=packages, check=True)
    line = "deb [trusted=yes] copy:/srv/archive ./"
    box.driver = AptDriver(AptOptions.model_validate({"refreshAfter": "0s", "undo": {"archive": line}}))
    before, patches = await box.plan()
    assert box.driver.undoable(before, patches).possible
    now = await box.phase(Phase.PREPARE, before, patches)
    now = await box.phase(Phase.APPLY, now, patches)
    for reply in await box.run(box.driver.undo(box.target, now, patches)):
        assert reply.ok, reply
    assert box.versions() == SHOP_V1


async def test_a_postinst_that_fails_is_failed_and_mended_by_undo(box: Box) -> None:
    box.lab.publish("v5")
    before, patches = await box.plan()
    now = await box.phase(Phase.PREPARE, before, patches)
    (reply,) = await box.run(box.driver.steps(box.target, Phase.APPLY, before, now, patches))
    assert reply.exit_code == 100
    assert "cannot migrate the catalogue" in reply.stdout + reply.stderr
    now = await box.probe()
    result = box.driver.verify(before, now, patches)
    assert result.outcome is Outcome.FAILED
    assert "half-way through shopfront:all" in result.reason
    assert "half_installed" in [refusal.code for refusal in box.driver.preflight(now)]
    for reply in await box.run(box.driver.undo(box.target, now, patches)):
        assert reply.ok, reply
    back = await box.probe()
    assert box.driver.verify_undo(back, patches).outcome is Outcome.UNDONE
    assert box.versions() == SHOP_V1


async def test_a_transaction_that_grew_is_refused_and_changes_nothing(box: Box) -> None:
    """The plan may narrow after approval, never widen."""
    box.lab.publish("v2")
    before, patches = await box.plan()
    now = await box.phase(Phase.PREPARE, before, patches)
    without = [patch for patch in patches if patch.component != "shop-tls:all"]
    (reply,) = await box.run(box.driver.steps(box.target, Phase.APPLY, before, now, without))
    assert reply.exit_code == CLOSURE_CHANGED
    assert f"Inst shop-tls:all={V2}" in reply.stderr
    assert box.versions() == SHOP_V1


async def test_an_undo_that_would_take_more_along_is_refused(box: Box) -> None:
    """F10: somebody installed a package that needs the new version."""
    box.lab.publish("v2")
    before, patches = await box.plan()
    now = await box.phase(Phase.PREPARE, before, patches)
    now = await box.phase(Phase.APPLY, now, patches)
    without = [patch for patch in patches if patch.component == "libshop:all"]
    (reply,) = await box.run(box.driver.undo(box.target, now, without))
    assert reply.exit_code in (CLOSURE_CHANGED, 100)
    assert box.versions()["libshop"] == V2


async def test_a_damaged_file_in_our_store_is_not_installed(box: Box) -> None:
    box.lab.publish("v2")
    before, patches = await box.plan()
    now = await box.phase(Phase.PREPARE, before, patches)
    box.shell(f"echo x >> '{STORE}/shop-tls_{V2}_all.deb'")
    (reply,) = await box.run(box.driver.steps(box.target, Phase.APPLY, before, now, patches))
    assert reply.exit_code == STORE_DAMAGED
    assert f"shop-tls_{V2}_all.deb" in reply.stderr
    assert box.versions() == SHOP_V1


async def test_a_held_package_is_refused_by_name(box: Box) -> None:
    box.lab.publish("v2")
    box.shell("apt-mark hold shopfront")
    before = await box.probe()
    assert before.held == ("shopfront:all",)
    refused = box.driver.transaction(before, [Patch(component="shopfront:all", before=V1, after=V2)])
    assert isinstance(refused, Refusal)
    assert (refused.code, "shopfront" in refused.message) == ("held", True)


async def test_a_dependency_that_is_held_is_refused_by_the_rehearsal(box: Box) -> None:
    box.lab.publish("v2")
    box.shell("apt-mark hold libshop")
    wanted = [Patch(component="shopfront:all", before=V1, after=V2)]
    refused = box.driver.transaction(await box.probe(wanted), wanted)
    assert isinstance(refused, Refusal)
    assert "libshop" in refused.message


async def test_a_lock_held_by_somebody_else_is_seen_and_named(box: Box) -> None:
    box.lab.publish("v2")
    hold = (
        "import fcntl; f = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(f, fcntl.LOCK_EX);"
        "open('/run/held', 'w').close(); open('/run/release').read()"
    )
    box.shell("mkfifo /run/release")
    holder = asyncio.create_task(asyncio.to_thread(box.lab.run, HOST, ["python3", "-c", hold]))
    await asyncio.to_thread(
        box.lab.eventually, "the lock is held", 10, lambda: box.lab.run(HOST, ["test", "-e", "/run/held"]).code == 0
    )
    before = await box.probe()
    locked = [refusal for refusal in box.driver.preflight(before) if refusal.code == "apt_locked"]
    box.shell("echo go > /run/release")
    await holder
    assert locked
    assert "python3" in locked[0].message
    assert "/var/lib/dpkg/lock-frontend" in locked[0].message


async def test_half_installed_before_we_start_is_a_preflight_refusal_with_the_command(box: Box) -> None:
    box.shell("cd /var/cache/apt/archives && dpkg --unpack shop-tools_*.deb")
    (refused,) = [refusal for refusal in box.driver.preflight(await box.probe()) if refusal.blocking]
    assert refused.code == "half_installed"
    assert "shop-tools:all (unpacked, not configured)" in refused.message
    assert "dpkg --configure -a" in refused.remedy


async def test_an_unreachable_repository_is_refused_with_the_reason(box: Box) -> None:
    box.shell("sed -i 's/:8081/:1/' /etc/apt/sources.list.d/lab.sources")
    (refused,) = [refusal for refusal in box.driver.preflight(await box.probe()) if refusal.blocking]
    assert refused.code == "repository_unreachable"
    assert "10.77.0.1" in refused.message


async def test_a_full_disk_is_refused_with_numbers(box: Box) -> None:
    box.lab.fill_disk(HOST, leave_kib=20_000)
    before = await box.probe()
    box.lab.free_disk(HOST)
    assert "disk_space" in [refusal.code for refusal in box.driver.preflight(before)]


async def test_unattended_upgrades_is_refused_or_taken_over_and_handed_back(box: Box) -> None:
    box.lab.publish("v2")
    box.shell(
        "echo 'APT::Periodic::Unattended-Upgrade \"1\";' > /etc/apt/apt.conf.d/99on; "
        "systemctl enable --now --quiet apt-daily-upgrade.timer"
    )
    before, patches = await box.plan()
    assert [refusal.code for refusal in box.driver.preflight(before) if refusal.blocking] == ["competing_patcher"]
    box.driver = AptDriver(AptOptions.model_validate({"refreshAfter": "0s", "takeover": True}))
    assert [refusal.code for refusal in box.driver.preflight(before) if refusal.blocking] == []
    now = await box.phase(Phase.PREPARE, before, patches)
    assert [step.name for step in box.driver.steps(box.target, Phase.APPLY, before, now, patches)] == [
        "take-over", "install",
    ]  # fmt: skip
    now = await box.phase(Phase.APPLY, now, patches)
    assert now.facts["takeover"]
    assert box.lab.run(HOST, ["systemctl", "is-active", "apt-daily-upgrade.timer"]).stdout.strip() == "inactive"
    now = await box.phase(Phase.ACTIVATE, now, patches)
    assert box.lab.run(HOST, ["systemctl", "is-active", "apt-daily-upgrade.timer"]).stdout.strip() == "active"


async def test_an_edited_setting_is_kept_and_reported(box: Box) -> None:
    """A kept conffile may leave the fix inactive."""
    box.lab.publish("shop-conf")
    box.shell("echo '# ours' >> /etc/shopfront/shop.conf")
    before, patches = await box.plan("shop-conf")
    now = await box.phase(Phase.PREPARE, before, patches)
    now = await box.phase(Phase.APPLY, now, patches)
    result = box.driver.verify(before, now, patches)
    assert result.outcome is Outcome.APPLIED
    assert "/etc/shopfront/shop.conf.dpkg-dist" in result.reason
    assert "# ours" in box.shell("cat /etc/shopfront/shop.conf")


async def test_a_reboot_that_is_asked_for_gives_a_new_boot_id(box: Box) -> None:
    box.lab.publish("v4")
    before, patches = await box.plan()
    now = await box.phase(Phase.PREPARE, before, patches)
    now = await box.phase(Phase.APPLY, now, patches)
    assert now.reboot_reasons == ("asked for by shopfront",)
    assert not box.driver.verify(before, now, patches).active
    (reboot,) = box.driver.steps(box.target, Phase.ACTIVATE, before, now, patches)
    assert reboot.expects_reboot
    handle = await box.session.start(uuid4().hex, reboot)
    progress = await box.session.wait(handle, reboot)
    assert progress.attach in (Attach.ENDED, Attach.REBOOTED)
    await asyncio.to_thread(box.lab.eventually, "a new boot id", 60, lambda: booted_anew(box.lab, now.boot_id))
    box.lab.ready(HOST)
    after = await box.probe()
    assert after.boot_id != before.boot_id
    assert not after.reboot_required
    assert box.driver.verify(before, after, patches).active
    assert box.driver.steps(box.target, Phase.ACTIVATE, before, after, patches) == []


async def test_a_service_on_replaced_files_is_applied_not_active_until_it_is_restarted(box: Box) -> None:
    """L2: a library update changes nothing for what runs; needrestart names it."""
    box.shell("f=$(readlink -f /lib/x86_64-linux-gnu/libsystemd.so.0); cp $f $f.new; mv $f.new $f")
    before = await box.probe()
    assert "ssh.service" in before.stale_services
    result = box.driver.verify(before, before, [])
    assert "applied, not active" in result.reason
    assert not result.active
    (step,) = [
        each for each in box.driver.steps(box.target, Phase.ACTIVATE, before, before, []) if not each.expects_reboot
    ]
    (reply,) = await box.run([step])
    assert reply.ok, reply
    assert "ssh.service" not in (await box.probe()).stale_services


async def test_no_sudo_is_a_refusal_of_its_own(box: Box) -> None:
    box.shell("rm /etc/sudoers.d/patch")
    snapshot = await box.probe()
    (refused,) = box.driver.preflight(snapshot)
    assert refused.code == "sudo_refused"
    step = Step(name="x", phase=Phase.APPLY, kind="act", call={"script": "true", "sudo": True})  # type: ignore[arg-type]
    with pytest.raises(LoginRefused, match="sudoers"):
        await box.session.start(uuid4().hex, step)


async def test_a_changed_host_key_is_refused(box: Box) -> None:
    box.lab.change_host_key(HOST)
    with pytest.raises(HostKeyChanged):
        await SshChannel(connection(box.lab)).open(box.target)


async def test_steps_of_a_user_with_sudo_are_root_owned_and_their_ids_run_once(box: Box) -> None:
    step = Step.model_validate(
        {"name": "who", "phase": "apply", "kind": "act", "call": {"script": "id -un", "sudo": True}}
    )
    plain = step.model_copy(update={"call": {"script": "id -un", "sudo": False}})
    # The line of docs/how-to/add-hosts.md is enough.
    box.shell("echo 'patch ALL=(root) NOPASSWD: /bin/sh' > /etc/sudoers.d/patch")
    root, user = await box.run([step, plain])
    assert (root.stdout, user.stdout) == ("root\n", "patch\n")
    assert box.shell("stat -c '%U %a' /var/lib/patching/steps") == "root 700\n"
    assert len(box.shell("cat /var/lib/patching/markers.log").splitlines()) == 2


async def test_what_a_snapshot_says_can_be_stored(box: Box) -> None:
    snapshot = await box.probe()
    assert Snapshot.model_validate(json.loads(snapshot.model_dump_json())) == snapshot
