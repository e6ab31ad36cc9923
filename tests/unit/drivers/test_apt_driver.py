"""What the apt driver decides: phases, drift, verdicts per package, refusals and undo (S3–S6, F7, F8, F10)."""

from __future__ import annotations

import subprocess
from datetime import datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.change import IfInterrupted, Outcome, Patch, Phase, Refusal, Step
from patching.drivers.apt import AptDriver
from patching.drivers.apt_checks import clock_skew
from patching.drivers.apt_options import AptOptions
from patching.target import Snapshot, Transaction
from unit.drivers.apt_cases import CLOSURE, TARGET, V1, V2, case, new, replies, snapshot

STORE = [f"{name}_{version}_all.deb" for name in ("shopfront", "libshop") for version in (V1, V2)]
STORE.append(f"shop-tls_{V2}_all.deb")


def driver(**options: object) -> AptDriver:
    return AptDriver(AptOptions.model_validate(options))


def steps(phase: Phase, now: Snapshot, **options: object) -> list[Step]:
    return driver(**options).steps(TARGET, phase, snapshot(), now, CLOSURE)


def names(found: list[Step]) -> list[str]:
    return [step.name for step in found]


def script(step: Step) -> str:
    return str(step.call["script"])


def test_phases_converge() -> None:
    assert names(steps(Phase.PREPARE, snapshot())) == ["download"]
    assert steps(Phase.PREPARE, snapshot(facts={"store": STORE})) == []
    assert names(steps(Phase.APPLY, snapshot())) == ["install"]
    assert steps(Phase.APPLY, new()) == []
    assert steps(Phase.ACTIVATE, new()) == []


def test_an_old_version_that_cannot_be_had_does_not_make_preparing_endless() -> None:
    store = [f"{name}.missing" if name == f"libshop_{V1}_all.deb" else name for name in STORE]
    assert steps(Phase.PREPARE, snapshot(facts={"store": store})) == []


def test_a_half_configured_package_keeps_the_install_to_do() -> None:
    half = new().model_copy(update={"half_installed": ("shopfront:all",)})
    assert names(steps(Phase.APPLY, half)) == ["install"]


def test_the_whole_closure_is_one_transaction_without_removing_or_asking() -> None:
    text = script(steps(Phase.APPLY, snapshot())[0])
    for words in (
        "DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_MODE=l", "--force-confdef", "--force-confold",
        "DPkg::Lock::Timeout=120", "Always-Include-Phased-Updates=true", "AutomaticRemove=false", "< /dev/null",
    ):  # fmt: skip
        assert words in text
    assert text.count("apt install $specs") == 1
    assert "--allow-downgrades" not in text


@pytest.mark.parametrize(
    ("options", "now", "expected"),
    [
        ({}, {"stale_services": ("ssh.service",)}, ["restart-services"]),
        ({"restart": "none"}, {"stale_services": ("ssh.service",)}, []),
        ({"restart": ["nginx.service"]}, {}, ["restart-services"]),
        ({}, {"reboot_required": True}, ["reboot"]),
        ({}, {"reboot_required": True, "stale_services": ("x.service",)}, ["restart-services", "reboot"]),
        ({}, {"facts": {"takeover": True}}, ["hand-back"]),
    ],
)
def test_activation(options: dict[str, object], now: dict[str, object], expected: list[str]) -> None:
    assert names(steps(Phase.ACTIVATE, snapshot(**now), **options)) == expected


def test_a_reboot_counts_as_done_when_nobody_saw_its_end() -> None:
    (reboot,) = steps(Phase.ACTIVATE, snapshot(reboot_required=True))
    assert reboot.expects_reboot
    assert reboot.if_interrupted is IfInterrupted.SUCCESS


def test_takeover_stops_the_other_patcher_before_installing() -> None:
    competing = snapshot(competing_patchers=("unattended-upgrades",))
    assert names(steps(Phase.APPLY, competing, takeover=True)) == ["take-over", "install"]
    assert names(steps(Phase.APPLY, snapshot(), takeover=True)) == ["install"]


BEFORE = {patch.component: patch.before for patch in CLOSURE}


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ({"shopfront:all": V1, "libshop:all": V1}, None),
        ({"shopfront:all": V2, "libshop:all": V2, "shop-tls:all": V2}, Outcome.NOTHING_TO_DO),
        ({"shopfront:all": "1.0.0-2", "libshop:all": V2, "shop-tls:all": "2"}, Outcome.NOTHING_TO_DO),
        ({"shopfront:all": V1, "libshop:all": V2}, None),
        ({"shopfront:all": "0.9-1", "libshop:all": V1}, Outcome.DRIFTED),
        ({"libshop:all": V1}, Outcome.DRIFTED),
        ({"shopfront:all": "1.0.0-2", "libshop:all": V1}, Outcome.DRIFTED),
    ],
)
def test_drift_per_package(versions: dict[str, str], expected: Outcome | None) -> None:
    found = driver().drift(BEFORE, snapshot(versions), CLOSURE)
    assert (found.outcome if found else None) is expected


@pytest.mark.parametrize("versions", list(product((V1, V2, "1.0.0-2"), repeat=2)))
def test_verify_never_passes_below_the_planned_version(versions: tuple[str, str]) -> None:
    after = snapshot({"shopfront:all": versions[0], "libshop:all": versions[1], "shop-tls:all": V2})
    result = driver().verify(snapshot(), after, CLOSURE)
    assert (result.outcome is Outcome.APPLIED) == (V1 not in versions)


def test_verify_looks_at_dpkg_status_and_names_what_is_half_way() -> None:
    half = new().model_copy(update={"half_installed": ("shopfront:all",)})
    result = driver().verify(snapshot(), half, CLOSURE)
    assert (result.outcome, result.signature) == (Outcome.FAILED, "apt:half:shopfront")


def test_applied_is_not_active_while_services_run_replaced_files_or_a_reboot_waits() -> None:
    for changed in ({"stale_services": ("ssh.service",)}, {"reboot_required": True, "reboot_reasons": ("a kernel",)}):
        result = driver().verify(snapshot(), new().model_copy(update=changed), CLOSURE)
        assert (result.outcome, result.active) == (Outcome.APPLIED, False)
        assert "not active" in result.reason


def test_a_removal_is_verified_as_absence() -> None:
    gone = [Patch(component="shopfront:all", before=V1, after=None)]
    assert driver().verify(snapshot(), snapshot({}), gone).outcome is Outcome.APPLIED
    assert driver().verify(snapshot(), snapshot(), gone).outcome is Outcome.FAILED


def test_undo_brings_old_versions_back_and_takes_new_packages_away() -> None:
    (undo,) = driver().undo(TARGET, new(), CLOSURE)
    text = script(undo)
    assert "--allow-downgrades" in text
    assert "--force-confold" in text
    assert f"add shopfront:all {V1} shopfront_{V1}_all.deb" in text
    assert 'specs="$specs shop-tls:all-"' in text
    assert "Remv shop-tls" in text
    assert undo.phase is Phase.UNDO
    assert driver().undo(TARGET, snapshot(), CLOSURE) == []


def test_undo_verdicts() -> None:
    assert driver().verify_undo(snapshot(), CLOSURE).outcome is Outcome.UNDONE
    left = snapshot({"shopfront:all": V1, "libshop:all": V1, "shop-tls:all": V2})
    result = driver().verify_undo(left, CLOSURE)
    assert result.outcome is Outcome.FAILED
    assert "shop-tls:all" in result.reason
    half = snapshot(half_installed=("libshop:all",))
    assert driver().verify_undo(half, CLOSURE).outcome is Outcome.FAILED


def test_undo_available_for_30_of_121_is_said_so() -> None:
    """T11."""
    patches = [Patch(component=f"p{number}:all", before="1", after="2") for number in range(121)]
    missing = tuple(f"p{number}:all=1" for number in range(91))
    actions: dict[str, tuple[str | None, str | None]] = {patch.component: ("1", "2") for patch in patches}
    undo = driver().undoable(snapshot(transaction=Transaction(actions=actions, undo_missing=missing)), patches)
    assert (undo.possible, undo.covered, undo.total) == (False, 30, 121)
    assert "undo available for 30 of 121" in undo.reason


def test_a_new_kernel_is_not_undone_by_a_downgrade() -> None:
    kernel = [Patch(component="linux-image-6.1.0-26-amd64:amd64", before=None, after="6.1.112-1")]
    undo = driver().undoable(snapshot(), kernel)
    assert not undo.possible
    assert "previous entry" in undo.reason
    assert "linux-image-6.1.0-26-amd64" in (driver().reboots(snapshot(), kernel) or "")


def test_reasons_of_a_rehearsed_transaction() -> None:
    recorded = case("plan-shopfront")
    wanted = [Patch.model_validate(patch) for patch in recorded["wanted"]]
    found = driver().transaction(driver().parse(TARGET, wanted, replies(recorded)), wanted)
    assert isinstance(found, list)
    assert {patch.component: patch.reason for patch in found} == {
        "shopfront:all": "", "libshop:all": "dependency of shopfront", "shop-tls:all": "dependency of shopfront",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "code"), [("plan-dependency-held", "held"), ("plan-version-unknown", "rehearsal_failed")]
)
def test_a_rehearsal_that_fails_is_a_refusal_with_apts_words(name: str, code: str) -> None:
    recorded = case(name)
    wanted = [Patch.model_validate(patch) for patch in recorded["wanted"]]
    found = driver().transaction(driver().parse(TARGET, wanted, replies(recorded)), wanted)
    assert isinstance(found, Refusal)
    assert found.code == code
    assert "shopfront" in found.message


def test_a_removal_in_the_rehearsal_is_named_as_one() -> None:
    actions: dict[str, tuple[str | None, str | None]] = {"shopfront:all": (V1, V2), "old:all": ("1", None)}
    wanted = [Patch(component="shopfront:all", before=V1, after=V2)]
    found = driver().transaction(snapshot(transaction=Transaction(actions=actions)), wanted)
    assert isinstance(found, list)
    assert found[1].after is None
    assert found[1].reason == "removed: it conflicts with shopfront"


@pytest.mark.parametrize(
    ("facts", "codes"),
    [
        ({}, []),
        ({"locks": [["/var/lib/dpkg/lock-frontend", "7", "apt-get"]]}, ["apt_locked"]),
        ({"update": {"code": 100, "said": "Could not get lock /var/lib/apt/lists/lock"}}, ["apt_locked"]),
        ({"update": {"code": 100, "said": "Failed to fetch http://x"}}, ["repository_unreachable"]),
        ({"disk": {"/var": {"free_kb": 100_000, "mounted": False}}}, ["disk_space"]),
        ({"disk": {"/boot": {"free_kb": 50_000, "mounted": True}}}, ["boot_space"]),
        ({"disk": {"/boot": {"free_kb": 50_000, "mounted": False}}}, []),
        ({"unread": "sudo: a password is required", "sudo": False}, ["sudo_refused"]),
        ({"unread": "dpkg: command not found", "sudo": True}, ["unreadable"]),
        ({"needrestart": False}, ["needrestart_missing"]),
    ],
)
def test_preflight_codes(facts: dict[str, object], codes: list[str]) -> None:
    found = driver().preflight(snapshot(facts=facts))
    assert [refusal.code for refusal in found] == codes
    assert all(refusal.remedy or refusal.code == "unreadable" for refusal in found if refusal.blocking)


def test_space_for_the_download_is_counted_three_times() -> None:
    facts = {"disk": {"/var": {"free_kb": 900_000, "mounted": False}}}
    big = Transaction(actions={}, download_bytes=250_000_000)
    assert driver().preflight(snapshot(facts=facts)) == []
    assert [item.code for item in driver().preflight(snapshot(facts=facts, transaction=big))] == ["disk_space"]


def test_a_competing_patcher_blocks_unless_it_is_taken_over() -> None:
    host = snapshot(competing_patchers=("unattended-upgrades",))
    assert [refusal.blocking for refusal in driver().preflight(host)] == [True]
    assert [refusal.blocking for refusal in driver(takeover=True).preflight(host)] == [False]


@pytest.mark.parametrize(("off", "refused"), [(0, False), (119, False), (-119, False), (121, True), (-3600, True)])
def test_clock_skew(off: int, refused: bool) -> None:
    now = datetime.fromisoformat("2026-11-24T22:00:00+00:00")
    host = snapshot(facts={"epoch": int((now + timedelta(seconds=off)).timestamp())})
    assert (clock_skew(host, now) is not None) is refused


@given(
    patches=st.lists(
        st.builds(
            Patch,
            component=st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,9}:(all|amd64)", fullmatch=True),
            before=st.none() | st.from_regex(r"[0-9][A-Za-z0-9.+~:-]{0,9}", fullmatch=True),
            after=st.none() | st.from_regex(r"[0-9][A-Za-z0-9.+~:-]{0,9}", fullmatch=True),
        ),
        max_size=5,
    )
)
def test_every_script_is_valid_shell(patches: list[Patch]) -> None:
    archive = {"archive": "deb [signed-by=/etc/apt/keyrings/old.gpg] http://old.invalid/debian bookworm main"}
    chosen = driver(undo=archive, takeover=True)
    host = snapshot({}, competing_patchers=("u",), stale_services=("a.service",), facts={"takeover": True})
    found = [step for phase in (Phase.PREPARE, Phase.APPLY, Phase.ACTIVATE)
             for step in chosen.steps(TARGET, phase, host, host, patches)]  # fmt: skip
    found += chosen.undo(TARGET, host, patches)
    text = "\n".join(script(step) for step in found)
    ran = subprocess.run(["/bin/sh", "-n"], input=text.encode(), capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    "patch",
    [
        Patch(component="x:all", before="1;reboot", after="2"),
        Patch(component="$(reboot):all", before=None, after="2"),
        Patch(component="y:all", before="1\n", after="2"),
    ],
)
def test_a_hostile_patch_never_reaches_a_script(patch: Patch) -> None:
    host = snapshot({"x:all": "2", "$(reboot):all": "2", "y:all": "2"})
    with pytest.raises(ValueError, match="is no"):
        driver().undo(TARGET, host, [patch])


@pytest.mark.parametrize("unit", ["a b", "x;reboot", "$(id)", ""])
def test_a_hostile_unit_is_refused_in_the_policy(unit: str) -> None:
    with pytest.raises(ValueError, match="restart"):
        AptOptions.model_validate({"restart": [unit]})
