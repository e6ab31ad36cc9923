"""Words: the one plain sentence of a comparison; pure."""

from __future__ import annotations

from collections.abc import Sequence

from patching.canary.verdicts import Numbers
from patching.policy import Compare

ALIKE = 2.0
"""Factor within which the loads of two hosts are alike."""


def shares(numbers: Numbers, label: str, limit: float | None) -> str:
    """Say both sides' error shares, or the treated one and the limit."""
    lead = f"error share {percent(numbers.treated_share)} of {count(numbers.treated_requests)} requests"
    if limit is not None:
        return f"{lead}, limit {percent(limit)}"
    mine = _a_host(numbers.treated_per_host, _unlike(numbers))
    theirs = _a_host(numbers.reference_per_host)
    other = f"{percent(numbers.reference_share)} of {count(numbers.reference_requests)}{theirs}"
    return f"{lead}{mine}, against {other} at {label}"


def _a_host(requests: float | None, unlike: str = "") -> str:
    return "" if requests is None else f" ({count(requests)} a host{unlike})"


def _unlike(numbers: Numbers) -> str:
    """Say how much busier the treated hosts were than the control's, where that is no like load any more."""
    mine, theirs = numbers.treated_per_host, numbers.reference_per_host
    if not mine or not theirs or 1 / ALIKE <= mine / theirs <= ALIKE:
        return ""
    return f", {mine / theirs:.2g} × the control's"


def conclusion(numbers: Numbers, compare: Compare, *, leaning: bool, limit: float | None) -> str:
    """Say what the evidence means, and for a pass how much harm could still have stayed unseen."""
    strength = f"evidence {numbers.evidence or 0:.3g}, {numbers.evidence_needed or 0:.3g} is needed"
    beyond = "above the limit" if limit is not None else f"worse than the tolerated {_tolerated(compare)}"
    if numbers.alarm_at is not None:
        return f": {beyond} ({strength})"
    seen = power(numbers.seen_ratio, limit)
    if numbers.treated_requests < compare.min_requests:
        return f"; too few requests to promote on, the policy wants {compare.min_requests}{seen}"
    if leaning:
        return f": looks {beyond}, but not beyond chance yet ({strength}); more data must tell{seen}"
    if numbers.ratio_high is None:
        return f"; no alarm, the true share may be up to {percent(numbers.share_high)}{seen}"
    return f"; no alarm, the true ratio may be up to {numbers.ratio_high:.2f} ×{seen}"


def power(ratio: float | None, limit: float | None = None) -> str:
    """Say which change such a soak shows in four of five rollouts: as a ratio, or as a share where a limit is given."""
    if ratio is None:
        return ""
    shown = f"{ratio:.2g} ×" if limit is None else percent(min(1.0, ratio * limit))
    return f"; in 4 of 5 rollouts it would have shown {shown}"


def _tolerated(compare: Compare) -> str:
    text = str(compare.max_relative_increase)
    factor = 1 + (float(text[:-1]) / 100 if text.endswith("%") else float(text))
    words = {"increase": "", "decrease": " decrease by", "either": " change by"}
    return f"{words[compare.direction]} {factor:.2f} ×".strip()


def names(targets: Sequence[str]) -> str:
    """List a few targets."""
    shown = ", ".join(targets[:5])
    return shown if len(targets) <= 5 else f"{shown} and {len(targets) - 5} more"


def percent(share: float | None) -> str:
    """Write a share."""
    return "?" if share is None else f"{100 * share:.3g} %"


def count(number: float | None) -> str:
    """Write a number of requests."""
    return "?" if number is None else f"{number:,.0f}".replace(",", " ")
