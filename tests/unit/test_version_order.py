"""The order of versions (S2): Debian's against dpkg itself, rpm and SemVer by their published examples."""

from __future__ import annotations

import random
import shutil
import subprocess

import pytest

from patching.version_order import compare, in_order, known_ecosystem, newest

PAIRS = 600
TRICKY = ["1.0", "1.0-0", "1.0-1", "1.0~rc1", "0:1.0", "1.0+b1", "1.0-1+deb12u1", "1.0-1~bpo12+1", "1.00", "1.0a",
          "1.0.", "1.0+", "1.0~", "1", "01", "1:0.1", "1.0-1-1", "1.0~~", "1.0~~a", "2", "1.2-4+deb12u10"]  # fmt: skip
ANSWERS = {-1: "lt", 0: "eq", 1: "gt"}


def random_version(chance: random.Random) -> str:
    def part(longest: int) -> str:
        return "".join(chance.choice("0123456789abzAZ.+~") for _ in range(chance.randint(1, longest)))

    version = chance.choice("0123456789") + (part(6) if chance.random() < 0.8 else "")
    if chance.random() < 0.5:
        version += f"-{part(4)}"
    return f"{chance.choice(['0', '1', '2'])}:{version}" if chance.random() < 0.2 else version


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is not installed: nothing to compare with")
@pytest.mark.parametrize("seed", range(3))
def test_debian_order_is_that_of_dpkg(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 -- no secret: the same versions every time
    pairs = [(random_version(chance), random_version(chance)) for _ in range(PAIRS)]
    pairs += [(chance.choice(TRICKY), chance.choice(TRICKY)) for _ in range(PAIRS)]
    ours = [compare("Debian:12", a, b) for a, b in pairs]
    assert len(set(ours)) == 3
    lines = [f'dpkg --compare-versions "{a}" {ANSWERS[said]} "{b}" || echo "{a} {b} {said}"'
             for (a, b), said in zip(pairs, ours, strict=True)]  # fmt: skip
    found = subprocess.run(["sh"], input="\n".join(lines), capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("", "")


@pytest.mark.parametrize(
    ("ecosystem", "versions"),
    [
        ("Debian:12", ["1.0~~", "1.0~rc1", "1.0", "1.0-1", "1.0-1+deb12u1", "1.0a", "1:0.1"]),
        ("Ubuntu:22.04:LTS", ["1.0-1ubuntu1", "1.0-1ubuntu1.1", "1.0-1ubuntu10"]),
        ("Rocky Linux:9", ["1.0~rc1-1", "1.0-1.el9", "1.0-2.el9", "1.0^git1-1", "1.0.1-1", "1:0.1-1"]),
        ("npm", ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-beta", "1.0.0", "1.0.1", "1.10.0", "2.0.0"]),
    ],
)
def test_published_orders(ecosystem: str, versions: list[str]) -> None:
    shuffled = list(versions)
    random.Random(1).shuffle(shuffled)  # noqa: S311
    assert in_order(ecosystem, shuffled) == versions
    assert newest(ecosystem, shuffled) == versions[-1]


def test_equal_versions_written_differently_are_equal() -> None:
    assert compare("Debian:12", "1.0", "0:1.0-0") == 0
    assert newest("Debian:12", []) is None


def test_unknown_ecosystem_and_nonsense_are_errors_and_not_an_order() -> None:
    assert known_ecosystem("Debian:12")
    assert not known_ecosystem("Haskell")
    with pytest.raises(ValueError, match=r'order of versions of "Haskell" is not known; known: AlmaLinux'):
        compare("Haskell", "1", "2")
    with pytest.raises(ValueError, match='"not a version" is no version of Debian'):
        compare("Debian:12", "1.0", "not a version")
    with pytest.raises(ValueError, match="no version of Debian"):
        compare("Debian:12", "nonsense", "nonsense")
