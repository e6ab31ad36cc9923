"""What a started step is doing, decided from the traces it leaves on the target: a table, one test a row.

The same table for people is docs/explanation/attach-table.md; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from patching.channels.base import Attach


@dataclass(frozen=True)
class Evidence:
    """What a target shows of one step id, read under the guard lock: see ``remote_job`` for the files."""

    directory: bool
    lock_held: bool
    started: bool
    exit_written: bool
    same_boot: bool
    group_alive: bool
    forbidden: bool


@dataclass(frozen=True)
class Row:
    """One row of the table: None matches both; ``meaning`` is the sentence for people."""

    attach: Attach
    meaning: str
    directory: bool | None = True
    lock_held: bool | None = None
    started: bool | None = None
    exit_written: bool | None = None
    same_boot: bool | None = None
    group_alive: bool | None = None
    forbidden: bool | None = None

    def matches(self, evidence: Evidence) -> bool:
        """Whether this row speaks about the evidence."""
        wanted = ((getattr(self, item.name), getattr(evidence, item.name)) for item in fields(Evidence))
        return all(want is None or want is found for want, found in wanted)


ATTACH_TABLE: tuple[Row, ...] = (
    Row(Attach.ABSENT, "the target never heard of the step: it may be started", directory=False),
    Row(Attach.ENDED, "the exit code is written, atomically and for good: it counts, whatever else is seen",
        exit_written=True),
    Row(Attach.FORBIDDEN, "given up before its payload began: no start will ever run it",
        exit_written=False, started=False, forbidden=True),
    Row(Attach.ABSENT, "prepared, but the machine went down before the payload began: it may be started",
        exit_written=False, started=False, same_boot=False, forbidden=False),
    Row(Attach.ABSENT, "prepared, but its runner died before the payload began: it may be started",
        exit_written=False, started=False, same_boot=True, lock_held=False, forbidden=False),
    Row(Attach.RUNNING, "its runner lives and waits for its turn (one acting step a host)",
        exit_written=False, started=False, same_boot=True, lock_held=True, forbidden=False),
    Row(Attach.REBOOTED, "the machine was booted anew while it ran: a reboot step is done, any other is lost",
        exit_written=False, started=True, same_boot=False),
    Row(Attach.RUNNING, "its runner lives and the payload runs",
        exit_written=False, started=True, same_boot=True, lock_held=True),
    Row(Attach.RUNNING, "its runner was killed but the payload still runs: its exit code will be lost",
        exit_written=False, started=True, same_boot=True, lock_held=False, group_alive=True),
    Row(Attach.LOST, "runner and payload are gone without an exit code: never success, probe the target",
        exit_written=False, started=True, same_boot=True, lock_held=False, group_alive=False),
)  # fmt: skip


def attach(evidence: Evidence) -> Attach:
    """Look the evidence up; every combination matches exactly one row."""
    return next(row.attach for row in ATTACH_TABLE if row.matches(evidence))


def table_as_markdown() -> str:
    """Write the table as docs/explanation/attach-table.md shows it; a dash means "either"."""
    shown = {True: "yes", False: "no", None: "–"}
    names = [item.name for item in fields(Evidence)]
    lines = [
        "| " + " | ".join(name.replace("_", " ") for name in names) + " | attach | meaning |",
        "|---" * (len(names) + 2) + "|",
    ]
    for row in ATTACH_TABLE:
        cells = [shown[getattr(row, name)] for name in names]
        lines.append("| " + " | ".join([*cells, f"**{row.attach.value}**", row.meaning]) + " |")
    return "\n".join(lines) + "\n"
