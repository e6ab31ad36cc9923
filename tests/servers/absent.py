"""What a test does when a server is not installed."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def not_installed(reason: str) -> NoReturn:
    """Skip with the reason, and fail under CI, where everything is installed."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
