"""Time to match a fleet with a feed, against a plain loop on the same hosts: python tests/bench/bench_matching.py.

10,000 hosts of 400 packages each out of five package sets, and 20,000 advisories. The plain loop decides each host's
packages anew, with dpkg's order but without what was decided before; it is measured on fewer hosts and scaled up.
Targets: less than 60 s of CPU, at least 6 times as fast as the plain loop (most of what is left is making findings).
The ratio is stable across machines; the seconds are not.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime

from univers.debian import Version

from patching.advisory import Advisory, AffectedRange, Finding
from patching.assess.matching import bare, match
from patching.target import Component, Snapshot
from patching.version_order import _parsed, compare

HOSTS, PLAIN_HOSTS, PACKAGES, SETS, ADVISORIES = 10_000, 50, 400, 5, 20_000
NOW = datetime(2026, 11, 24, tzinfo=UTC)
MOST_SECONDS, LEAST_RATIO = 60.0, 6.0


def fleet(count: int) -> dict[str, Snapshot]:
    """Make hosts; each has its own components, as if they were read one by one."""
    hosts = {}
    for number in range(count):
        chosen = number % SETS
        installed = {
            f"pkg{index}:amd64": Component(
                version=f"1.{(index * 7 + chosen) % 30}-1+deb12u{chosen}",
                source=f"src{index // 2}",
                source_version=f"1.{(index * 7 + chosen) % 30}-1+deb12u{chosen}",
            )
            for index in range(PACKAGES)
        }
        name = f"host-{number}"
        hosts[name] = Snapshot(target=name, taken_at=NOW, ecosystem="Debian:12", installed=installed)
    return hosts


def feed() -> list[Advisory]:
    """Make advisories for twenty times as many source packages as the hosts have."""
    return [
        Advisory(
            id=f"DSA-{number}",
            affected=(
                AffectedRange(
                    ecosystem="Debian:12", package=f"src{number % (PACKAGES * 10)}", fixed=f"1.{number % 6}-1+deb12u1"
                ),
            ),
        )
        for number in range(ADVISORIES)
    ]


def plain(hosts: dict[str, Snapshot], advisories: list[Advisory]) -> int:
    """Decide every package of every host by itself; gives the number of findings."""
    index: dict[str, list[tuple[str, str]]] = {}
    for advisory in advisories:
        for item in advisory.affected:
            index.setdefault(item.package, []).append((advisory.id, item.fixed or ""))
    found = []
    for name, host in hosts.items():
        for component, installed in host.installed.items():
            for package, version in (
                (installed.source, installed.source_version),
                (bare(component), installed.version),
            ):
                for advisory_id, fixed in index.get(package or "", ()):
                    if Version.from_string(version) < Version.from_string(fixed):
                        found.append(
                            Finding(
                                advisory=advisory_id, target=name, component=component,
                                installed=installed.version, fixed=fixed,
                            )
                        )  # fmt: skip
    return len(found)


def main() -> int:
    """Print both times and the ratio; exit code 1 when a target is missed."""
    hosts, advisories = fleet(HOSTS), feed()
    few = dict(list(hosts.items())[:PLAIN_HOSTS])
    compare.cache_clear()
    _parsed.cache_clear()
    began = time.process_time()
    found = match(hosts, advisories)
    ours = time.process_time() - began
    began = time.process_time()
    expected = plain(few, advisories)
    theirs = (time.process_time() - began) * HOSTS / PLAIN_HOSTS
    if sum(len(found[name]) for name in few) != expected:
        raise SystemExit("the two do not find the same")
    total, ratio = sum(map(len, found.values())), theirs / ours
    print(f"match {HOSTS} hosts × {PACKAGES} packages with {ADVISORIES} advisories: {ours:.1f} s CPU, {total} findings")
    print(f"plain loop: {theirs:.0f} s (from {PLAIN_HOSTS} hosts); ratio {ratio:.0f}")
    return 0 if ours < MOST_SECONDS and ratio >= LEAST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
