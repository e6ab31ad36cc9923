"""CVSS v3 base scores from their vectors: what an advisory without a word of its own says about its severity.

Formula and weights: FIRST, "Common Vulnerability Scoring System v3.1: Specification Document", sections 7.1 and 7.4,
rounding as in its appendix A. Version 4 needs FIRST's table of macro vectors and is not scored here.
"""

from __future__ import annotations

_WEIGHTS: dict[str, dict[str, float]] = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
    "AC": {"L": 0.77, "H": 0.44},
    "PR": {"N": 0.85, "L": 0.62, "H": 0.27},
    "UI": {"N": 0.85, "R": 0.62},
    "C": {"H": 0.56, "L": 0.22, "N": 0.0},
    "I": {"H": 0.56, "L": 0.22, "N": 0.0},
    "A": {"H": 0.56, "L": 0.22, "N": 0.0},
}
_PRIVILEGES_IF_CHANGED = {"N": 0.85, "L": 0.68, "H": 0.5}
BANDS = ((9.0, "critical"), (7.0, "high"), (4.0, "medium"), (0.1, "low"))


def base_score(vector: str) -> float | None:
    """Compute the base score (0.0 to 10.0) of a ``CVSS:3.x`` vector; None for other versions and malformed ones."""
    if not vector.startswith(("CVSS:3.0/", "CVSS:3.1/")):
        return None
    parts = dict(part.partition(":")[::2] for part in vector.split("/")[1:])
    scope = parts.get("S")
    try:
        weight = {name: table[parts[name]] for name, table in _WEIGHTS.items()}
    except KeyError:
        return None
    if scope not in ("U", "C"):
        return None
    if scope == "C":
        weight["PR"] = _PRIVILEGES_IF_CHANGED[parts["PR"]]
    lost = 1 - (1 - weight["C"]) * (1 - weight["I"]) * (1 - weight["A"])
    impact = 6.42 * lost if scope == "U" else 7.52 * (lost - 0.029) - 3.25 * (lost - 0.02) ** 15
    exploitability = 8.22 * weight["AV"] * weight["AC"] * weight["PR"] * weight["UI"]
    if impact <= 0:
        return 0.0
    total = impact + exploitability
    return _round_up(min(total if scope == "U" else 1.08 * total, 10))


def severity_of(score: float) -> str | None:
    """Give the word for a score (specification, section 5); None for 0.0."""
    return next((word for limit, word in BANDS if score >= limit), None)


def _round_up(number: float) -> float:
    whole = round(number * 100_000)
    return whole / 100_000 if whole % 10_000 == 0 else (whole // 10_000 + 1) / 10
