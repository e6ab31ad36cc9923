"""The table of docs/how-to/choose-checks.md is what the judge's power says (S6).

``python -m unit.canary.test_soak_table`` in tests/ writes it.
"""

from __future__ import annotations

import re
from pathlib import Path

from patching.canary.counts import tolerance
from patching.canary.power import TYPICAL_SPREAD, seen_ratio
from patching.canary.weights import looks_of, share_of
from patching.policy import Check, PrometheusCheck

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "choose-checks.md"
BLOCK = re.compile(r"<!-- seen -->\n.*?<!-- /seen -->", re.DOTALL)
SOAKS = {"10m": 10, "30m": 30, "2h": 120}
REQUESTS = (6, 60, 600)
CANARIES = (1, 3, 10)
ERROR_SHARE = 0.01
CONTROLS = 30
CHECK = Check(name="errors", prometheus=PrometheusCheck(connection="p", errors="e{$series}", requests="r{$series}"))


def seen(canaries: int, minutes: int, requests: int) -> str:
    """Give the ratio for one metric check with the defaults in three waves, each of which is watched."""
    share = share_of(CHECK, [CHECK], looks_of([CHECK], [2, 2, 2], watched=False))
    errors = canaries * minutes * requests * ERROR_SHARE
    level, tolerated = CHECK.compare.alpha * share, tolerance(CHECK.compare)
    ratio = seen_ratio(canaries, CONTROLS, level, tolerated, TYPICAL_SPREAD, errors)
    return f"{ratio:.1f} ×" if ratio < 10 else f"{ratio:.0f} ×"


def table() -> str:
    """Write the table."""
    head = [f"{number} canar{'y' if number == 1 else 'ies'}" for number in CANARIES]
    lines = [f"| soak | requests a minute and host | {' | '.join(head)} |", "|" + "---|" * (2 + len(CANARIES))]
    lines += [
        f"| {soak} | {requests} | {' | '.join(seen(number, minutes, requests) for number in CANARIES)} |"
        for soak, minutes in SOAKS.items()
        for requests in REQUESTS
    ]
    return "\n".join(["<!-- seen -->", *lines, "<!-- /seen -->"])


def test_table_of_the_page_is_what_the_judge_can_see() -> None:
    found = BLOCK.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None
    assert found.group() == table(), "run python -m unit.canary.test_soak_table in tests/"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(BLOCK.sub(lambda _match: table(), text), encoding="utf-8")
