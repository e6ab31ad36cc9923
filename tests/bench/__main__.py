"""Run every bench and write docs/reference/performance.md: python -m bench [name …]; exit code 1: a target was missed.

Each bench is a process of its own. What counts are ratios of one run: seconds are this machine's.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs/reference/performance.md"
INTRO = """<!-- Made by `make bench`; do not edit. -->

# Performance

What was measured last, by the programs in `tests/bench/`. A ratio compares two ways of doing the same in one run, so it
holds on other machines; seconds are those of the machine named below, which may have been busy with other work.
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


def page(results: list[Result]) -> str:
    """Write the page."""
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    parts = [INTRO, f"Machine: {machine}.\n"]
    for result in results:
        verdict = "target met" if result.met else "**target missed**"
        parts.append(f"## {result.what}\n\n`tests/bench/{result.name}.py`: {verdict}\n\n```\n{result.said}\n```\n")
    return "\n".join(parts)


def main() -> int:
    """Run all benches, or those that are named (then no page is written)."""
    wanted = sys.argv[1:] or benches()
    unknown = sorted(set(wanted) - set(benches()))
    if unknown:
        print(f"no such bench: {', '.join(unknown)}; there are: {', '.join(benches())}", file=sys.stderr)
        return 2
    results = []
    for name in wanted:
        print(f"running {name}", file=sys.stderr, flush=True)
        results.append(run(name))
        print(results[-1].said, flush=True)
    if not sys.argv[1:]:
        PAGE.write_text(page(results), encoding="utf-8")
        print(f"wrote {PAGE}", file=sys.stderr)
    return 0 if all(result.met for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
