"""Recorded answers of a real Debian 12, and short ways to make snapshots for the apt driver's tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from patching.change import Patch, Reply
from patching.target import Component, Member, Snapshot, Target

CASES = Path(__file__).parents[2] / "cases" / "drivers" / "apt"
TARGET = Target(name="web-01", members=(Member(address="10.77.1.1"),))
V1, V2 = "1.0.0-1", "1.0.0-1+deb12u1"
CLOSURE = [
    Patch(component="shopfront:all", before=V1, after=V2),
    Patch(component="libshop:all", before=V1, after=V2),
    Patch(component="shop-tls:all", before=None, after=V2),
]


def case(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CASES / f"{name}.json").read_text())
    return found


def replies(recorded: dict[str, Any]) -> dict[str, Reply]:
    return {name: Reply(step=name, **reply) for name, reply in recorded["replies"].items()}


def snapshot(versions: dict[str, str] | None = None, **changed: Any) -> Snapshot:
    """A healthy host with the first release, or with these versions."""
    versions = {"shopfront:all": V1, "libshop:all": V1} if versions is None else versions
    facts = {"sudo": True, "store": [], "needrestart": True, **changed.pop("facts", {})}
    given = {
        "target": "web-01",
        "taken_at": "2026-11-24T22:00:00Z",
        "ecosystem": "Debian:12",
        "installed": {name: Component(version=version) for name, version in versions.items()},
        "facts": facts,
        **changed,
    }
    return Snapshot.model_validate(given)


def new() -> Snapshot:
    return snapshot({patch.component: patch.after for patch in CLOSURE if patch.after})
