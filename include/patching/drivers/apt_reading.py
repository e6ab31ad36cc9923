"""The replies of one reading of a host with apt, parsed: packages, offers, the rehearsed transaction."""

from __future__ import annotations

from collections.abc import Mapping

from patching.change import Reply
from patching.drivers.apt_text import (
    Packages,
    Rehearsal,
    VersionRow,
    component_names,
    parse_dpkg,
    parse_policy_files,
    parse_policy_tables,
    parse_rehearsal,
    sections,
)
from patching.target import Offer, Transaction

STATE, REHEARSE, OLD_VERSIONS = "state", "rehearse", "old-versions"
NATIVE = "amd64"


def old_versions(rehearsal: Rehearsal) -> dict[str, str]:
    """Give what an undo of a rehearsed transaction would have to bring back."""
    return {name: before for name, (before, _) in rehearsal.actions.items() if before is not None}


class AptReading:
    """The replies of all rounds, parsed once."""

    def __init__(self, replies: Mapping[str, Reply]) -> None:
        self.replies = replies
        self.parts = sections(replies[STATE].stdout) if STATE in replies else {}
        self.host = pairs(self.parts.get("host", ""))
        self.packages: Packages = parse_dpkg(self.parts.get("dpkg", ""))
        self.names = component_names(self.packages.installed, self.host.get("arch", NATIVE))
        origins = parse_policy_files(self.parts.get("sources", ""))
        tables = parse_policy_tables(self.parts.get("versions", ""), origins)
        self.tables: dict[str, list[VersionRow]] = {self.names.get(name, name): rows for name, rows in tables.items()}

    @property
    def rehearsal(self) -> Rehearsal:
        """The simulated transaction."""
        reply = self.replies[REHEARSE]
        return parse_rehearsal(reply.stdout, reply.exit_code, self.names)

    def offers(self) -> dict[str, tuple[Offer, ...]]:
        """Versions that an index offers and that are not installed; a pin below zero forbids a version."""
        found = {}
        for component, rows in self.tables.items():
            installed = self.packages.installed.get(component)
            offered = tuple(
                Offer(version=row.version, origins=row.origins)
                for row in rows
                if row.origins and row.priority >= 0 and installed is not None and row.version != installed.version
            )
            if offered:
                found[component] = offered
        return found

    def undo_missing(self, rehearsal: Rehearsal) -> tuple[str, ...]:
        """Name the old versions that neither our store, nor the cache, nor an index, nor the archive has."""
        reply = self.replies.get(OLD_VERSIONS)
        found = {line.split()[0] for line in reply.stdout.splitlines() if line.strip()} if reply else set()
        missing = []
        for component, version in old_versions(rehearsal).items():
            rows = self.tables.get(component, ())
            in_index = any(row.version == version and row.origins for row in rows)
            if not in_index and f"{component}={version}" not in found:
                missing.append(f"{component}={version}")
        return tuple(missing)

    def transaction(self) -> Transaction | None:
        """Give the rehearsed transaction, None where none was asked for."""
        if REHEARSE not in self.replies:
            return None
        rehearsal = self.rehearsal
        return Transaction(
            actions=rehearsal.actions,
            undo_missing=self.undo_missing(rehearsal),
            download_bytes=rehearsal.download_bytes,
            error=rehearsal.error,
        )


def pairs(text: str) -> dict[str, str]:
    """Read lines of ``name=value`` or ``name="value"``."""
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in text.splitlines())}
