"""The drivers that exist, by the name that a policy uses; a driver is imported only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from patching.diagnostics import did_you_mean
from patching.drivers.base import DriverOptions, PatchDriver
from patching.errors import PatchingError

DRIVERS: dict[str, str] = {
    "apt": "patching.drivers.apt:AptDriver",
    "simulated": "patching.drivers.simulated:SimulatedDriver",
}
OPTIONS: dict[str, str] = {
    "apt": "patching.drivers.apt_options:AptOptions",
    "simulated": "patching.drivers.simulated:SimulatedOptions",
}


class UnknownDriver(PatchingError):
    """A policy names a driver that does not exist."""


def driver_class(name: str) -> type[PatchDriver]:
    """Import a driver's class by name; raises UnknownDriver, which lists the known ones."""
    if name not in DRIVERS:
        raise UnknownDriver(f'unknown driver "{name}"{did_you_mean(name, DRIVERS)}')
    return cast("type[PatchDriver]", _load(DRIVERS[name]))


def options_class(name: str) -> type[DriverOptions]:
    """Give the model of a driver's options without importing the driver, as checking files must be quick.

    Raises UnknownDriver.
    """
    if name not in OPTIONS:
        raise UnknownDriver(f'unknown driver "{name}"{did_you_mean(name, OPTIONS)}')
    return cast("type[DriverOptions]", _load(OPTIONS[name]))


def _load(path: str) -> object:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)
