"""Advisory, Finding, Priority: a published statement, where it applies, and how urgent it is there."""

from __future__ import annotations

from datetime import datetime

from patching.value import Value


class AffectedRange(Value):
    """Versions of one package that are affected: from ``introduced`` up to, but not including, ``fixed``.

    ``fixed`` None means that no fix has been published; ``last_affected``, where given, is the last affected one.
    """

    ecosystem: str
    package: str
    introduced: str = "0"
    fixed: str | None = None
    last_affected: str | None = None


class Advisory(Value):
    """One published statement about vulnerable versions (OSV record, reduced to what decisions need).

    ``irreversible`` is why its fix cannot be taken back, where the feed says so (a migration, a firmware fuse).
    """

    id: str
    aliases: tuple[str, ...] = ()
    summary: str = ""
    severity: str | None = None
    score: float | None = None
    published: datetime | None = None
    modified: datetime | None = None
    withdrawn: datetime | None = None
    exploited: bool = False
    irreversible: str | None = None
    affected: tuple[AffectedRange, ...] = ()


class Finding(Value):
    """Advisory × target: one vulnerable component on one target, with the version that closes it.

    ``package`` is the name that the advisory uses; where it is the component's source, ``fixed`` is a source version.
    """

    advisory: str
    target: str
    component: str
    installed: str
    fixed: str | None
    package: str = ""


class Priority(Value):
    """How urgent a target or finding is: smaller rank first, with the reason that a person reads."""

    rank: int
    name: str
    reason: str
    due: datetime | None = None
