"""The simulated archive: which packages are offered, and the files that stand for them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from lab import packages

URL = "http://10.77.0.1:8081"
LABELS = {"lab": "Lab", "lab-security": "Lab-Security"}
CACHE = "var/cache/apt/archives"


@dataclass(frozen=True)
class Offer:
    """One package in one suite."""

    binary: packages.Binary
    suite: str

    @property
    def origin(self) -> str:
        """How apt shows where it comes from."""
        return f"{LABELS[self.suite]}:{self.suite}"


def offers(directory: Path) -> dict[str, Offer]:
    """List what the lab has published now, by package."""
    path = directory / "repository" / "published.json"
    published: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    found: dict[str, Offer] = {}
    for name, version in published.items():
        if name in packages.EXTRAS:
            found[name] = Offer(packages.beside(name, version), packages.EXTRAS[name][2])
            continue
        for binary in packages.binaries(packages.release(version)):
            found[binary.package] = Offer(binary, "lab-security")
    return found


def known_offers(root: Path) -> dict[str, Offer]:
    """List what a host has learnt of at its last update."""
    path = root / "var/lib/apt/lists/offers.json"
    if not path.exists():
        return {}
    wanted = json.loads(path.read_text())
    by_name = {(binary.package, binary.version): binary for binary in packages.everything()}
    return {name: Offer(by_name[name, version], suite) for name, (version, suite) in wanted.items()}


def learn(root: Path, directory: Path) -> None:
    """Let a host update its lists."""
    path = root / "var/lib/apt/lists/offers.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {name: (offer.binary.version, offer.suite) for name, offer in offers(directory).items()}
    path.write_text(json.dumps(found))


def file_content(binary: packages.Binary) -> bytes:
    """Give the bytes that stand for a .deb: the same every time, so that hashes can be compared."""
    fields = {"Package": binary.package, "Version": binary.version, "Architecture": "all", "Depends": binary.depends}
    return (json.dumps(fields | {"Source": binary.source, "Simulated": "yes"}, sort_keys=True) + "\n").encode()


def sha256(binary: packages.Binary) -> str:
    """Give the hash of the file that stands for a package."""
    return hashlib.sha256(file_content(binary)).hexdigest()


def keep(root: Path, binary: packages.Binary, where: str = CACHE) -> None:
    """Put the file that stands for a package into a folder of a host."""
    folder = root / where
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{binary.filename}.{os.getpid()}"
    partial.write_bytes(file_content(binary))
    partial.rename(folder / binary.filename)


def from_file(path: Path) -> packages.Binary | None:
    """Tell which package a file stands for; None when it is damaged or no such file."""
    try:
        content = path.read_bytes()
        fields = json.loads(content)
    except (OSError, ValueError):
        return None
    for binary in packages.everything():
        if (binary.package, binary.version) == (fields.get("Package"), fields.get("Version")):
            return binary if file_content(binary) == content else None
    return None


def find(name: str, version: str) -> packages.Binary | None:
    """Find a package of any release."""
    return next((b for b in packages.everything() if (b.package, b.version) == (name, version)), None)


def needs(binary: packages.Binary) -> dict[str, str | None]:
    """List what a package depends on inside the lab, with the exact version where one is asked for."""
    found: dict[str, str | None] = {}
    for part in binary.depends.split(","):
        match = re.match(r"\s*([a-z0-9+.-]+)(?:\s*\(=\s*([^)]+)\))?", part)
        if match and match[1].startswith(("shop", "libshop")):
            found[match[1]] = match[2]
    return found
