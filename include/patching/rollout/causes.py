"""Causes: what kind of error ended a change job, read from its signature; whether time mends it; what it accuses.

The tables are data and are printed in docs/explanation/budgets.md. The first row that matches wins. A signature is
made once, where the error happens, and is all that budgets see of it.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

LOST_IN_REBOOT = "reboot:lost"
FINGERPRINT = 80


class Cause(StrEnum):
    """A class of errors."""

    OFFLINE = "offline"
    CONNECTION = "connection"
    NETWORK = "network"
    LOCK = "lock"
    LOGIN = "login"
    SPACE = "space"
    HOOK = "hook"
    REBOOT = "reboot"
    OVERDUE = "overdue"
    CHECK = "check"
    PACKAGE = "package"


class Meaning(NamedTuple):
    """What a cause means: whether another try can help, whether it speaks against the patch, and in words."""

    again: bool
    accuses: bool
    words: str


MEANINGS: dict[Cause, Meaning] = {
    Cause.OFFLINE: Meaning(again=True, accuses=False, words="it does not answer"),
    Cause.CONNECTION: Meaning(again=True, accuses=False, words="connection lost"),
    Cause.NETWORK: Meaning(again=True, accuses=False, words="network error on the target"),
    Cause.LOCK: Meaning(again=True, accuses=False, words="the package system was locked"),
    Cause.LOGIN: Meaning(again=False, accuses=False, words="login or host key refused"),
    Cause.SPACE: Meaning(again=False, accuses=False, words="no space left on the target"),
    Cause.HOOK: Meaning(again=False, accuses=False, words="a hook failed"),
    Cause.REBOOT: Meaning(again=False, accuses=False, words="it did not come back from its reboot"),
    Cause.OVERDUE: Meaning(again=False, accuses=True, words="a step took longer than its deadline"),
    Cause.CHECK: Meaning(again=False, accuses=True, words="a check does not pass"),
    Cause.PACKAGE: Meaning(again=False, accuses=True, words="the change itself failed"),
}

_SIGNATURES: tuple[tuple[str, Cause], ...] = (
    (r"offline$", Cause.OFFLINE),
    (r"unknown$", Cause.CONNECTION),
    (rf"{LOST_IN_REBOOT}$", Cause.REBOOT),
    (r"(LoginRefused|HostKeyUnknown|HostKeyChanged)$", Cause.LOGIN),
    (r"network:", Cause.NETWORK),
    (r"lock:", Cause.LOCK),
    (r"space:", Cause.SPACE),
    (r"hook:", Cause.HOOK),
    (r"probe:", Cause.CHECK),
    (r"\w+:[^:]+:overdue", Cause.OVERDUE),
)

_OUTPUTS: tuple[tuple[str, Cause], ...] = (
    (r"no space left on device|not enough free space", Cause.SPACE),
    (r"could not get lock|unable to (?:acquire|lock) .*(?:dpkg|lock)|is another process using it", Cause.LOCK),
    (
        r"could not connect|connection (?:refused|reset|timed out|failed)|unable to connect|timed? ?out"
        r"|could not resolve|temporary failure (?:in name resolution|resolving)|network is unreachable"
        r"|no route to host|50[0234] +(?:bad gateway|service unavailable|gateway time-?out|internal server error)",
        Cause.NETWORK,
    ),
)
"""Words that a *preparing* step prints. What fails later has changed the target: no words make that harmless."""


def cause_of(signature: str | None) -> Cause:
    """Give the cause that a signature names; whatever is not in the table is the change's own failure."""
    for pattern, cause in _SIGNATURES:
        if signature is not None and re.match(pattern, signature):
            return cause
    return Cause.PACKAGE


def meaning_of(signature: str | None) -> Meaning:
    """Give what the cause of a signature means."""
    return MEANINGS[cause_of(signature)]


def step_signature(phase: str, name: str, code: str, output: str, detail: str) -> str:
    """Make the signature of a failed step: its cause where the output of a preparing one tells it, then what failed.

    ``output`` is all that it printed, ``detail`` the line that a person reads. Numbers, hexadecimal words and paths are
    taken out of that line, so that the same failure on two targets has the same signature.
    """
    found = ""
    if phase == "prepare":
        found = next((f"{cause.value}:" for pattern, cause in _OUTPUTS if re.search(pattern, output, re.I)), "")
    return f"{found}{phase}:{name}:{code}{_fingerprint(detail)}"


def _fingerprint(detail: str) -> str:
    text = re.sub(r"/\S+|\b0x[0-9a-f]+\b|\b[0-9a-f]{8,}\b|\d+", "#", detail, flags=re.I)
    text = " ".join(text.split())[:FINGERPRINT]
    return f": {text}" if text else ""
