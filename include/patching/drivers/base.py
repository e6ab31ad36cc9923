"""PatchDriver: one technology's knowledge, as pure functions from values to steps and values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from patching.change import JobResult, Patch, Phase, Refusal, Reply, Step, Undo
from patching.target import Snapshot, Target
from patching.value import CamelValue


class DriverOptions(CamelValue):
    """Options of a driver as the policy's ``driver.options`` block has them; each driver has its own class."""


class PatchDriver(Protocol):
    """What one technology must answer; nothing here does I/O or reads a clock."""

    name: str

    def probe(self, target: Target, wanted: Sequence[Patch], replies: Mapping[str, Reply]) -> list[Step]:
        """Give the next round of reading; [] when enough is known.

        With ``wanted`` patches the last round also rehearses the whole transaction and looks for what an undo needs.
        Step names are stable keys of ``replies``.
        """
        ...

    def parse(self, target: Target, wanted: Sequence[Patch], replies: Mapping[str, Reply]) -> Snapshot:
        """Turn the replies of all rounds into a Snapshot (``taken_at`` is the epoch; the caller sets it)."""
        ...

    def preflight(self, snapshot: Snapshot) -> list[Refusal]:
        """Say what stands against a change: full disk, locks, broken packages, a competing patcher, no repository."""
        ...

    def transaction(self, snapshot: Snapshot, wanted: Sequence[Patch]) -> list[Patch] | Refusal:
        """Give the whole transaction (dependencies included) that the rehearsal found for the wanted patches."""
        ...

    def undoable(self, snapshot: Snapshot, patches: Sequence[Patch]) -> Undo:
        """Say, when planning, whether the whole transaction can be brought back and from where."""
        ...

    def reboots(self, snapshot: Snapshot, patches: Sequence[Patch]) -> str | None:
        """Say why the patches are expected to need a reboot, or None."""
        ...

    def drift(self, before: Mapping[str, str | None], now: Snapshot, patches: Sequence[Patch]) -> JobResult | None:
        """Compare the planned before-state with now: None = go, else nothing_to_do or drifted with the reason."""
        ...

    def steps(
        self, target: Target, phase: Phase, before: Snapshot, now: Snapshot, patches: Sequence[Patch]
    ) -> list[Step]:
        """Give the steps of one phase (PREPARE, APPLY, ACTIVATE), [] when that phase has converged."""
        ...

    def verify(self, before: Snapshot, after: Snapshot, patches: Sequence[Patch]) -> JobResult:
        """Judge a target by what it runs now, per component, never by an exit code alone."""
        ...

    def undo(self, target: Target, now: Snapshot, patches: Sequence[Patch]) -> list[Step]:
        """Give the steps that bring the before-state back, [] when it is back already."""
        ...

    def verify_undo(self, now: Snapshot, patches: Sequence[Patch]) -> JobResult:
        """Judge an undo by what the target runs now."""
        ...
