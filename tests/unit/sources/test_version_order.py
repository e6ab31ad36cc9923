"""The order of versions (S2): as dpkg and rpm decide, checked against dpkg itself and against published vectors."""

from __future__ import annotations

import random
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.version_order import compare, in_order, known_ecosystem, newest

# Debian policy 5.6.12 by its own examples, and pairs that naive comparisons get wrong.
DEBIAN = [
    ("1.0~beta1~svn1245", "1.0~beta1"),
    ("1.0~beta1", "1.0"),
    ("1.0~~", "1.0~~a"),
    ("1.0~~a", "1.0~"),
    ("1.0~", "1.0"),
    ("1.0", "1.0a"),
    ("1.9", "1.10"),
    ("1.2.3", "1.2.3-0+deb12u1"),
    ("3.0.14-1~deb12u2", "3.0.15-1~deb12u1"),
    ("3.0.15-1~deb12u1", "3.0.15-1"),
    ("1.0-1", "1.0-1+b1"),
    ("1.0-1+b1", "1.0-1.1"),
    ("1.0-1+b9", "1.0-1+b10"),
    ("9:0.1", "10:0.0"),
    ("2.0", "1:1.0"),
    ("1.0a", "1.0+"),
    ("0.0.0-1", "0.0.0-2"),
    ("6.1.90-1", "6.1.94-1"),
]
EQUAL = [("1.0", "0:1.0"), ("1.0", "1.0-0"), ("1.00", "1.0"), ("1.0-01", "1.0-1"), ("1.", "1.0")]


@pytest.mark.parametrize(("lower", "higher"), DEBIAN)
def test_debian_vectors(lower: str, higher: str) -> None:
    assert compare("Debian:12", lower, higher) == -1
    assert compare("Debian:12", higher, lower) == 1


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_different_texts_of_the_same_debian_version_are_equal(one: str, other: str) -> None:
    assert compare("Debian", one, other) == 0


# rpm's own test suite, tests/rpmvercmp.at.
RPM = [
    ("1.0", "2.0", -1),
    ("2.0.1a", "2.0.1", 1),
    ("5.5p1", "5.5p10", -1),
    ("10xyz", "10.1xyz", -1),
    ("xyz.4", "8", -1),
    ("5.5p2", "5.6p1", -1),
    ("6.0.rc1", "6.0", 1),
    ("10b2", "10a1", 1),
    ("1.0aa", "1.0aa", 0),
    ("10.0001", "10.1", 0),
    ("10.0001", "10.0039", -1),
    ("20101121", "20101122", -1),
    ("2_0", "2.0", 0),
    ("1.0~rc1", "1.0", -1),
    ("1.0~rc1~git123", "1.0~rc1", -1),
    ("1.0^", "1.0", 1),
    ("1.0^git1", "1.01", -1),
    ("1:1.0", "2.0", 1),
    ("1.0-1.el9", "1.0-2.el9", -1),
]


@pytest.mark.parametrize(("one", "other", "expected"), RPM)
def test_rpm_vectors(one: str, other: str, expected: int) -> None:
    assert compare("Rocky Linux:9", one, other) == expected
    assert compare("Rocky Linux:9", other, one) == -expected


SEMVER = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11",
          "1.0.0-rc.1", "1.0.0", "1.9.0", "1.10.0", "1.11.0"]  # fmt: skip


def test_semver_in_the_order_of_its_specification() -> None:
    shuffled = list(SEMVER)
    random.Random(7).shuffle(shuffled)  # noqa: S311 -- no secret
    assert in_order("npm", shuffled) == SEMVER


def test_unknown_ecosystem_is_refused_and_says_which_are_known() -> None:
    assert not known_ecosystem("Haiku")
    with pytest.raises(ValueError, match=r'"Haiku" is not known; known: .*Debian'):
        compare("Haiku", "1", "2")


@pytest.mark.parametrize("version", ["", "no version", "1.0 beta", "a:1.0", "1.0_1"])
def test_what_is_no_version_is_refused_and_named(version: str) -> None:
    with pytest.raises(ValueError, match="is no version of Debian"):
        compare("Debian", version, "1.0")


def test_a_text_that_is_no_version_does_not_equal_itself() -> None:
    with pytest.raises(ValueError, match="is no version of Debian"):
        compare("Debian", "no version", "no version")


upstream = st.text("0123456789abz.+~-", min_size=1, max_size=8).map(lambda text: "1" + text.strip("-"))
versions = st.builds(
    lambda epoch, text, revision: f"{epoch}{text}{revision}",
    st.sampled_from(["", "", "0:", "1:", "12:"]),
    upstream,
    st.text("0123456789az.+~", max_size=5).map(lambda text: f"-{text}" if text else ""),
)


@given(versions, versions, versions)
def test_order_is_total(a: str, b: str, c: str) -> None:
    assert compare("Debian", a, b) == -compare("Debian", b, a)
    if compare("Debian", a, b) <= 0 and compare("Debian", b, c) <= 0:
        assert compare("Debian", a, c) <= 0


@given(st.lists(versions, min_size=1, max_size=8))
def test_newest_is_at_least_every_other(found: list[str]) -> None:
    best = newest("Debian", found)
    assert best is not None
    assert all(compare("Debian", best, other) >= 0 for other in found)
    assert compare("Debian", in_order("Debian", found)[-1], best) == 0


def test_newest_of_none_is_none() -> None:
    assert newest("Debian", []) is None


def random_version(draw: random.Random) -> str:
    body = "".join(draw.choice("0123456789abz.+~-") for _ in range(draw.randint(1, 7)))
    epoch = draw.choice(["", "", "", "0:", "1:", "2:"])
    revision = draw.choice(["", "-1", "-1~deb12u1", "-1+deb12u2", "-1+b1", "-0ubuntu1.2", "-01", "-1."])
    return f"{epoch}{draw.choice('0123')}{body.strip('-')}{revision}"


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is not installed here")
def test_600_random_pairs_and_the_vectors_are_ordered_as_dpkg_orders_them() -> None:
    """A differential test: dpkg is the authority, we must not differ in one pair."""
    draw = random.Random(20261124)  # noqa: S311 -- no secret
    pairs = [(random_version(draw), random_version(draw)) for _ in range(500)]
    near = [(version, version + draw.choice(["~", "+b1", "0", ".0", "a", "-1", "~~"])) for version, _ in pairs[:100]]
    every = [*pairs, *near, *DEBIAN, *EQUAL]
    script = "".join(
        f"if dpkg --compare-versions '{a}' lt '{b}'; then echo -1; "
        f"elif dpkg --compare-versions '{a}' eq '{b}'; then echo 0; else echo 1; fi\n"
        for a, b in every
    )
    told = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True)
    expected = [int(line) for line in told.stdout.split()]
    assert told.stderr == ""
    assert len(expected) == len(every)
    assert [(pair, compare("Debian:12", *pair)) for pair in every] == list(zip(every, expected, strict=True))
