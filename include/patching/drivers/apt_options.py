"""Options of the apt driver: the policy's ``driver.options`` block."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from patching.drivers.base import DriverOptions
from patching.quantity import Duration
from patching.value import CamelValue

Unit = Annotated[str, Field(pattern=r"^[A-Za-z0-9@_.:\\-]+$")]
SourceLine = Annotated[str, Field(pattern=r"^deb (\[[^\]\n]*\] )?\S+ \S+( \S+)*$")]


class UndoOptions(CamelValue):
    """Where superseded versions can still be had: one line as in sources.list, for a mirror that keeps them."""

    archive: SourceLine | None = None


class AptOptions(DriverOptions):
    """How hosts with apt are patched; the defaults suit a plain Debian or Ubuntu.

    ``restart``: services that still run replaced files, none, or these units. ``takeover``: stop unattended-upgrades
    for the time of the change instead of refusing. ``lockTimeout``: how long apt waits for somebody else's lock.
    ``refreshAfter``: how old the package index may be when a host is read. ``minFreeMb``, ``minBootMb``: megabytes
    that must be left on /var and on a /boot of its own.
    """

    restart: Literal["needed", "none"] | tuple[Unit, ...] = "needed"
    takeover: bool = False
    undo: UndoOptions = UndoOptions()
    lock_timeout: Duration = 120.0
    refresh_after: Duration = 10.0
    min_free_mb: int = Field(default=300, ge=0)
    min_boot_mb: int = Field(default=100, ge=0)
    prepare_timeout: Duration = 1800.0
    apply_timeout: Duration = 3600.0
