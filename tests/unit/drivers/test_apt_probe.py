"""Reading a host with apt: recorded answers become snapshots, in the rounds that were recorded (S1, S3)."""

from __future__ import annotations

import pytest

from patching.change import Patch, Reply, StepKind
from patching.drivers.apt import AptDriver
from patching.drivers.apt_kernel import kernel_reasons
from patching.drivers.apt_reading import STATE
from patching.drivers.apt_text import (
    bare,
    component_names,
    parse_dpkg,
    parse_needrestart,
    parse_policy_files,
    parse_policy_tables,
    parse_rehearsal,
)
from patching.target import Component
from unit.drivers.apt_cases import CASES, TARGET, case, replies

NAMES = sorted(path.stem for path in CASES.glob("*.json"))
# From a Debian 12 with security, updates and a point release behind.
SOURCES = """\
Package files:
 100 /var/lib/dpkg/status
     release a=now
 500 http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
     release v=12,o=Debian,a=oldstable-security,n=bookworm-security,l=Debian-Security,c=main,b=amd64
     origin deb.debian.org
 500 http://deb.debian.org/debian bookworm/main amd64 Packages
     release v=12.15,o=Debian,a=oldstable,n=bookworm,l=Debian,c=main,b=amd64
     origin deb.debian.org
Pinned packages:
"""
TABLES = """\
libssl3:
  Installed: 3.0.19-1~deb12u2
  Candidate: 3.0.22-1~deb12u2
  Version table:
     3.0.22-1~deb12u2 500
        500 http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
     3.0.20-1~deb12u2 500
        500 http://deb.debian.org/debian bookworm/main amd64 Packages
 *** 3.0.19-1~deb12u2 100
        100 /var/lib/dpkg/status
"""
SIMULATED = """\
Inst libperl5.36 [5.36.0-7+deb12u2] (5.36.0-7+deb12u4 Debian-Security:12/oldstable-security [amd64]) [perl:amd64 ]
Inst perl [5.36.0-7+deb12u2] (5.36.0-7+deb12u4 Debian-Security:12/oldstable-security [amd64]) []
Inst libc6:i386 [2.36-9] (2.36-10 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [i386])
Inst cpio (2.13+dfsg-7.1 Debian:12.15/oldstable [amd64])
Inst shop [1.0] (1.1 Lab-Security:lab-security, local-deb [all])
Inst plain [1:1.0] (1:1.1 [amd64])
Remv old-thing [1.0-1]
Conf cpio (2.13+dfsg-7.1 Debian:12.15/oldstable [amd64])
"""


@pytest.mark.parametrize("name", NAMES)
def test_recorded_answers_become_the_recorded_snapshot(name: str) -> None:
    recorded = case(name)
    wanted = [Patch.model_validate(patch) for patch in recorded["wanted"]]
    snapshot = AptDriver().parse(TARGET, wanted, replies(recorded))
    dumped = snapshot.model_dump(mode="json")
    for key, expected in recorded["snapshot"].items():
        if key in ("installed", "facts"):
            assert {word: dumped[key].get(word) for word in expected} == expected
        else:
            assert dumped[key] == expected, key
    assert [refusal.code for refusal in AptDriver().preflight(snapshot)] == recorded["preflight"]


@pytest.mark.parametrize("name", NAMES)
def test_the_driver_asks_for_the_rounds_that_were_recorded(name: str) -> None:
    recorded = case(name)
    wanted = [Patch.model_validate(patch) for patch in recorded["wanted"]]
    given: dict[str, Reply] = {}
    while steps := AptDriver().probe(TARGET, wanted, given):
        for step in steps:
            assert step.kind is StepKind.READ
            given[step.name] = replies(recorded)[step.name]
    assert list(given) == list(recorded["replies"])


def test_a_hostile_version_never_reaches_a_script() -> None:
    state = {STATE: replies(case("read-nothing-offered"))[STATE]}
    for component, version in (("x:all", "1; reboot"), ("$(id):all", "1"), ("--x:all", "1"), ("x", "1")):
        with pytest.raises(ValueError, match="is no"):
            AptDriver().probe(TARGET, [Patch(component=component, before=None, after=version)], state)


def test_each_version_has_the_origins_that_offer_it() -> None:
    """The version in the security origin, which may differ from apt's candidate."""
    tables = parse_policy_tables(TABLES, parse_policy_files(SOURCES))
    assert [(row.version, row.origins) for row in tables["libssl3"]] == [
        ("3.0.22-1~deb12u2", ("Debian-Security:oldstable-security",)),
        ("3.0.20-1~deb12u2", ("Debian:oldstable",)),
        ("3.0.19-1~deb12u2", ()),
    ]


def test_a_simulation_is_read_with_architectures_and_removals() -> None:
    names = component_names(["old-thing:amd64"], "amd64")
    rehearsal = parse_rehearsal(SIMULATED, 0, names)
    assert rehearsal.actions == {
        "libperl5.36:amd64": ("5.36.0-7+deb12u2", "5.36.0-7+deb12u4"),
        "perl:amd64": ("5.36.0-7+deb12u2", "5.36.0-7+deb12u4"),
        "libc6:i386": ("2.36-9", "2.36-10"),
        "cpio:amd64": (None, "2.13+dfsg-7.1"),
        "shop:all": ("1.0", "1.1"),
        "plain:amd64": ("1:1.0", "1:1.1"),
        "old-thing:amd64": ("1.0-1", None),
    }
    assert rehearsal.origins["perl:amd64"] == "Debian-Security:oldstable-security"
    assert rehearsal.error is None


def test_a_simulation_whose_end_was_not_seen_is_an_error() -> None:
    assert parse_rehearsal("", None, {}).error == "apt-get ended with None"


def test_dpkg_status_tells_held_half_installed_and_removed_apart() -> None:
    rows = ("a\tall\t1\tii \ta\t1", "b\tamd64\t1\thi \tb\t1", "c\tamd64\t1\tiF \tc\t1", "d\tamd64\t1\trc \td\t1",
            "e\tamd64\t\tun \te\t", "f\tamd64\t1\tiHR\tf\t1", "g\tamd64\t1\tit \tg\t1")  # fmt: skip
    packages = parse_dpkg("\n".join(rows))
    assert list(packages.installed) == ["a:all", "b:amd64", "c:amd64", "f:amd64", "g:amd64"]
    assert packages.held == ("b:amd64",)
    assert packages.half == {"c:amd64": "half-configured", "f:amd64": "half-installed"}


def test_needrestart_names_services_once() -> None:
    text = "NEEDRESTART-VER: 3.6\nNEEDRESTART-KSTA: 1\nNEEDRESTART-SVC: ssh.service\nNEEDRESTART-SVC: ssh.service\n"
    assert parse_needrestart(text) == ("ssh.service",)


@pytest.mark.parametrize(
    ("running", "build", "installed", "expected"),
    [
        ("6.1.0-25-amd64", "", {}, []),
        ("6.1.0-25-amd64", "", {"linux-image-6.1.0-25-amd64": "6.1.106-3"}, []),
        ("6.1.0-9-amd64", "", {"linux-image-6.1.0-9-amd64": "6.1.27-1", "linux-image-6.1.0-10-amd64": "6.1.37-1"},
         ["kernel 6.1.0-9-amd64 runs, 6.1.0-10-amd64 is installed"]),
        ("6.1.0-25-amd64", "", {"linux-image-6.1.0-25-amd64": "1", "linux-image-6.1.0-26-cloud-amd64": "2"}, []),
        ("6.1.0-25-amd64", "#1 SMP Debian 6.1.106-1 (2024-08-01)", {"linux-image-6.1.0-25-amd64": "6.1.106-3"},
         ["kernel 6.1.0-25-amd64 runs as built in 6.1.106-1, 6.1.106-3 is installed"]),
        ("5.15.0-1-generic", "", {"linux-image-unsigned-x": "1"}, []),
        ("6.18.44-custom.build", "", {"linux-image-amd64": "6.1.1"}, []),
    ],
)  # fmt: skip
def test_a_kernel_needs_a_reboot_only_within_its_flavour(
    running: str, build: str, installed: dict[str, str], expected: list[str]
) -> None:
    components = {f"{name}:amd64": Component(version=version) for name, version in installed.items()}
    assert kernel_reasons(running, build, components) == expected


def test_bare_name() -> None:
    assert bare("libc6:amd64") == "libc6"
