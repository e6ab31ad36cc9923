"""The advisories of the lab's packages, as the OSV format has them for Debian."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab import packages

ECOSYSTEM = "Debian:12"
# (id, source package, fixed version, CVE, summary, CVSS vector, published)
FIXES = (
    ("DLA-LAB-0001", "shopfront", "v2", "CVE-2026-90001", "shopfront: request smuggling over plain HTTP",
     "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:N", "2026-11-02T08:00:00Z"),
    ("DLA-LAB-0002", "shopfront", "v3", "CVE-2026-90002", "shopfront: catalogue can be read without a session",
     "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N", "2026-11-09T08:00:00Z"),
    ("DLA-LAB-0003", "shopfront", "v4", "CVE-2026-90003", "shopfront: memory shared with the kernel is not cleared",
     "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H", "2026-11-12T08:00:00Z"),
    ("DLA-LAB-0004", "shopfront", "v5", "CVE-2026-90004", "shopfront: catalogue migration follows symbolic links",
     "CVSS:3.1/AV:L/AC:H/PR:L/UI:N/S:U/C:N/I:H/A:N", "2026-11-16T08:00:00Z"),
    ("DLA-LAB-0101", "shop-conf", "shop-conf", "CVE-2026-90101", "shop-conf: default settings allow debug requests",
     "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:L/I:N/A:N", "2026-11-05T08:00:00Z"),
)  # fmt: skip


def fixed_version(release: str) -> str:
    """Give the version that fixes an advisory."""
    return packages.EXTRAS[release][1] if release in packages.EXTRAS else packages.release(release).version


def documents(published: dict[str, str]) -> list[dict[str, Any]]:
    """Give an advisory for every fix that the published versions contain."""
    order = list(packages.RELEASES)
    newest = published.get(packages.SOURCE_PACKAGE)
    reached = order.index(packages.release(newest).name) if newest else 0
    return [
        document(*fix)
        for fix in FIXES
        if (fix[2] in published if fix[2] in packages.EXTRAS else order.index(fix[2]) <= reached)
    ]


def document(
    name: str, package: str, release: str, cve: str, summary: str, vector: str, published: str
) -> dict[str, Any]:
    """Give one advisory in the OSV format."""
    events = [{"introduced": "0"}, {"fixed": fixed_version(release)}]
    return {
        "schema_version": "1.6.0",
        "id": name,
        "published": published,
        "modified": published,
        "aliases": [cve],
        "upstream": [cve],
        "summary": summary,
        "details": f"{summary}. Fixed in {fixed_version(release)}.",
        "severity": [{"type": "CVSS_V3", "score": vector}],
        "affected": [
            {
                "package": {
                    "ecosystem": ECOSYSTEM,
                    "name": package,
                    "purl": f"pkg:deb/debian/{package}?arch=source&distro=bookworm",
                },
                "ranges": [{"type": "ECOSYSTEM", "events": events}],
            }
        ],
        "references": [{"type": "ADVISORY", "url": f"https://lab.invalid/{name}"}],
    }


def write(directory: Path, published: dict[str, str]) -> None:
    """Write the advisories to a directory; those of fixes that nobody published are taken away."""
    directory.mkdir(parents=True, exist_ok=True)
    wanted = {f"{entry['id']}.json": entry for entry in documents(published)}
    for stale in set(directory.glob("*.json")) - {directory / name for name in wanted}:
        stale.unlink()
    for name, entry in wanted.items():
        partial = directory / f".{name}"
        partial.write_text(json.dumps(entry, indent=2) + "\n")
        partial.rename(directory / name)
