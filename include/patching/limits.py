"""Limits: how much of a domain or service may be away at once, whoever patches; they belong to no policy.

``limits.yaml`` in the policies folder holds one ``PatchLimits`` document. A policy may only tighten: its own limits
count too, and the tighter one wins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from patching.diagnostics import Diagnostic
from patching.policy import API_VERSION, DnsLabel
from patching.policy_document import load_document, parse_document
from patching.policy_yaml import Document
from patching.quantity import IntOrPercent, fraction
from patching.target import Target
from patching.value import CamelValue

LIMITS_FILE = "limits.yaml"


class LimitsMetadata(CamelValue):
    """Name of the limits, for people."""

    name: DnsLabel = "limits"
    description: str = ""


class DomainLimit(CamelValue):
    """One limit: every value of ``label`` (or only these ``values``) is a domain of its own.

    ``maxUnavailable`` is of all targets of the inventory in it, percent rounds down, at least 1. ``minHealthy`` is the
    quorum that stays, percent rounds up. ``maxRebooting`` is how many of it may reboot at once.
    """

    label: str
    values: tuple[str, ...] = ()
    max_unavailable: IntOrPercent | None = None
    min_healthy: IntOrPercent | None = None
    max_rebooting: int | None = Field(default=None, ge=1)

    def domain(self, target: Target) -> str | None:
        """Domain of a target under this limit (``az=eu-1``), None where the limit does not mean it."""
        value = target.labels.get(self.label)
        if value is None or (self.values and value not in self.values):
            return None
        return f"{self.label}={value}"


class LimitsSpec(CamelValue):
    """The body of the limits."""

    limits: tuple[DomainLimit, ...] = ()


class PatchLimits(CamelValue):
    """One PatchLimits document."""

    api_version: Literal["patching/v1alpha1"] = API_VERSION  # type: ignore[assignment]
    kind: Literal["PatchLimits"] = "PatchLimits"
    metadata: LimitsMetadata = LimitsMetadata()
    spec: LimitsSpec = LimitsSpec()

    def population(self, targets: Sequence[Target]) -> dict[str, int]:
        """Count all targets of an inventory in each domain that a limit means."""
        found: set[tuple[str, str]] = {
            (domain, target.name)
            for target in targets
            for limit in self.spec.limits
            if (domain := limit.domain(target)) is not None
        }
        return dict(sorted(Counter(domain for domain, _ in found).items()))


def load_limits(directory: Path | str) -> PatchLimits:
    """Read ``limits.yaml`` of a policies directory; without the file nothing is limited.

    Raises PolicyError with all errors: broken limits are no reason to plan without limits.
    """
    return load_document(Path(directory) / LIMITS_FILE, PatchLimits, _breaches) or PatchLimits()


def parse_limits(raw: str | bytes, path: str = LIMITS_FILE) -> PatchLimits:
    """Read limits from text; raises PolicyError with all errors."""
    return parse_document(raw, path, PatchLimits, _breaches)


def _breaches(limits: PatchLimits, document: Document) -> Iterator[Diagnostic]:
    for index, limit in enumerate(limits.spec.limits):
        at = ("spec", "limits", index)
        if limit.max_unavailable is None and limit.min_healthy is None and limit.max_rebooting is None:
            message = f'the limit of "{limit.label}" limits nothing; write maxUnavailable, minHealthy or maxRebooting'
            yield document.report(at, message, "empty-limit")
        if limit.max_unavailable == 0 or (limit.max_unavailable and fraction(limit.max_unavailable) == 0):
            message = f'"maxUnavailable" is {limit.max_unavailable}, so nothing could ever be patched; write at least 1'
            yield document.report((*at, "maxUnavailable"), message, "max-unavailable")
