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


class UnknownDriver(PatchingError):
    """A policy names a driver that does not exist."""


def driver_class(name: str) -> type[PatchDriver]:
    """Import a driver's class by name; raises UnknownDriver, which lists the known ones."""
    if name not in DRIVERS:
        raise UnknownDriver(f'unknown driver "{name}"{did_you_mean(name, DRIVERS)}')
    module, _, attribute = DRIVERS[name].partition(":")
    return cast("type[PatchDriver]", getattr(import_module(module), attribute))


def options_class(name: str) -> type[DriverOptions]:
    """Give the model of a driver's options; a driver without any has the empty one. Raises UnknownDriver."""
    return cast("type[DriverOptions]", getattr(driver_class(name), "options", DriverOptions))
