"""A lab of real Debian hosts without Docker: what the fault tests and the demo run against."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.api import Lab, Ran
    from lab.layout import Host, LabError, Layout
    from lab.preflight import Problem, install_tools

# Found when asked for: the stand-ins of simulated hosts start often, and must not load what they do not use.
HOMES = {
    "Host": "layout",
    "Lab": "api",
    "LabError": "layout",
    "Layout": "layout",
    "Problem": "preflight",
    "Ran": "api",
    "install_tools": "preflight",
}
__all__ = ["Host", "Lab", "LabError", "Layout", "Problem", "Ran", "install_tools"]


def __getattr__(name: str) -> object:
    if name not in HOMES:
        raise AttributeError(name)
    return getattr(import_module(f"lab.{HOMES[name]}"), name)
