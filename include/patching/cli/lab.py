"""``patching lab``: forwards to the lab of a checkout; an installed package has no lab."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path


def lab(arguments: Sequence[str]) -> int:
    """Start, stop and visit the lab; the lab is part of the repository, not of the package."""
    tests = checkout() / "tests"
    if not (tests / "lab" / "cli.py").is_file():
        print(
            f"patching lab: no lab at {tests / 'lab'}; it is part of the repository, not of the installed package. "
            "Clone the repository and install it with pip install -e .",
            file=sys.stderr,
        )
        return 2
    sys.path.insert(0, str(tests))
    return int(import_module("lab.cli").main(list(arguments)) or 0)


def checkout() -> Path:
    """Give the root of the checkout that this package would be part of."""
    return Path(__file__).resolve().parents[3]
