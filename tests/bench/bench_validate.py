"""Time to validate policy files, against the plain C loader on the same files: python tests/bench/bench_validate.py.

Targets: 500 files in less than 1 s beyond process start. The ratio is stable across machines; the seconds are not.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import yaml

from patching.plan.recurrence import _days_of_year, moment
from patching.policy_files import find_policies, load_all

FILES = 500
NOW = datetime(2026, 10, 20, tzinfo=UTC)
GUIDE = Path(__file__).parents[2] / "docs/how-to/write-a-policy.md"


def write(directory: Path) -> list[Path]:
    """Write the guide's complete policy 500 times, with 7 × 24 different windows, as a large estate would have."""
    text = GUIDE.read_text(encoding="utf-8").split("## A complete policy")[1].split("```yaml\n")[1].split("```")[0]
    for index in range(FILES):
        days = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")[index % 7]
        made = text.replace("web-os-security", f"web-{index}").replace("BYDAY=TU,WE", f"BYDAY={days}")
        (directory / f"web-{index}.yaml").write_text(made.replace("22:00", f"{index % 24:02}:00"), encoding="utf-8")
    return find_policies(directory)


def validate(files: list[Path]) -> None:
    """Validate with empty caches, as a new process would."""
    _days_of_year.cache_clear()
    moment.cache_clear()
    policies, errors = load_all(files, now=NOW)
    if errors or len(policies) != FILES:
        raise SystemExit(f"the bench's own policies are wrong: {errors[:3]}")


def plain(files: list[Path]) -> None:
    """Only read YAML."""
    for file in files:
        yaml.load(file.read_bytes(), Loader=yaml.CSafeLoader)


def seconds(call: Callable[[list[Path]], None], files: list[Path]) -> float:
    """Median of five."""
    taken = []
    for _ in range(5):
        began = time.process_time()
        call(files)
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def main() -> int:
    """Print both times and the ratio; exit code 1 when the target is missed."""
    with tempfile.TemporaryDirectory() as directory:
        files = write(Path(directory))
        ours, theirs = seconds(validate, files), seconds(plain, files)
    print(f"validate {FILES} policies: {ours:.3f} s CPU; plain C loader: {theirs:.3f} s; ratio {ours / theirs:.2f}")
    return 0 if ours < 1.0 else 1


if __name__ == "__main__":
    sys.exit(main())
