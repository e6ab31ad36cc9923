"""Run every bench, or those named, and write docs/reference/performance.md: python -m bench [name …].

Each bench is a process of its own and replaces its own section. What counts are ratios of one run: seconds are this
machine's. Exit code 1: a target was missed.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
PLACE = "tests/bench/"
PAGE = HERE.parents[1] / "docs/reference/performance.md"
INTRO = """<!-- Made by `make bench`; do not edit. -->

# Performance

What was measured last, by the programs in `tests/bench/`. A ratio compares two ways of doing the same in one run, so it
holds on other machines; seconds are those of the machine that is named, which may have been busy with other work: the
more its load average exceeds its cores, the less its seconds mean.
"""


@dataclass(frozen=True)
class Result:
    """How one bench ended: its own words and whether its target was met."""

    name: str
    what: str
    said: str
    met: bool


def benches() -> list[str]:
    """Name the modules that measure something, in order."""
    return sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("__"))


def run(name: str) -> Result:
    """Run one bench; what it prints on stdout is its result."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{name}"], env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    first = (HERE / f"{name}.py").read_text(encoding="utf-8").split('"""')[1].splitlines()[0]
    return Result(name, first.partition(": python")[0].rstrip("."), done.stdout.strip(), done.returncode == 0)


def section(result: Result, load: float) -> str:
    """Write one bench's part of the page; ``load`` is the machine's average meanwhile, the bench's own included."""
    verdict = "target met" if result.met else "**target missed**"
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    when = f"{datetime.now(UTC):%Y-%m-%d}, {machine}, load average {load:.1f} at the end"
    return f"## {result.what}\n\n`{PLACE}{result.name}.py`: {verdict} ({when})\n\n```\n{result.said}\n```\n"


def page(old: str, new: dict[str, str]) -> str:
    """Put new sections in the place of old ones; those of benches that are gone are left out."""
    found = {}
    for part in old.split("\n## ")[1:]:
        name = part.partition(PLACE)[2].partition(".py")[0]
        found[name] = f"## {part.strip()}\n"
    sections = {**found, **new}
    return "\n".join([INTRO, *(sections[name] for name in benches() if name in sections)])


def main() -> int:
    """Run all benches, or those that are named, and put what they say into the page."""
    wanted = sys.argv[1:] or benches()
    unknown = sorted(set(wanted) - set(benches()))
    if unknown:
        print(f"no such bench: {', '.join(unknown)}; there are: {', '.join(benches())}", file=sys.stderr)
        return 2
    met = True
    for name in wanted:
        print(f"running {name}", file=sys.stderr, flush=True)
        result = run(name)
        met = met and result.met
        print(result.said, flush=True)
        old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        if result.said:
            PAGE.write_text(page(old, {name: section(result, os.getloadavg()[1])}), encoding="utf-8")
            print(f"wrote {PAGE}", file=sys.stderr)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
