"""Advisories in the OSV format (https://ossf.github.io/osv-schema/): files, lists, or folders of files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from patching.advisory import Advisory, AffectedRange
from patching.errors import AdvisoryError

SEVERITIES = ("critical", "high", "moderate", "medium", "low", "negligible", "unimportant")


def read_advisories(path: Path) -> tuple[Advisory, ...]:
    """Read every advisory of a file or folder, in order of their ids; raises AdvisoryError with file and record.

    A file ``known_exploited_vulnerabilities.json`` beside them (CISA's list) marks what is exploited.
    """
    if not path.exists():
        raise AdvisoryError(f"there are no advisories at {path}: check spec.patches.advisories")
    files = sorted(path.glob("**/*.json")) if path.is_dir() else [path]
    exploited = {name for file in files if file.name == KEV_NAME for name in _exploited(file)}
    found = {}
    for file in files:
        if file.name == KEV_NAME:
            continue
        for record in _records(file):
            advisory = _advisory(file, record)
            known = exploited.intersection((advisory.id, *advisory.aliases))
            found[advisory.id] = advisory.model_copy(update={"exploited": True}) if known else advisory
    return tuple(found[name] for name in sorted(found))


KEV_NAME = "known_exploited_vulnerabilities.json"


def _load(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise AdvisoryError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise AdvisoryError(f"{file} is no JSON: {error}") from error


def _exploited(file: Path) -> Iterator[str]:
    for item in _load(file).get("vulnerabilities", []):
        yield str(item["cveID"])


def _records(file: Path) -> Iterator[Mapping[str, Any]]:
    document = _load(file)
    for record in document if isinstance(document, list) else [document]:
        if not isinstance(record, dict) or not record.get("id"):
            raise AdvisoryError(f"{file}: a record has no id; each must be an OSV record")
        yield record


def _advisory(file: Path, record: Mapping[str, Any]) -> Advisory:
    try:
        return Advisory(
            id=str(record["id"]),
            aliases=tuple(dict.fromkeys([*record.get("aliases", ()), *record.get("upstream", ())])),
            summary=str(record.get("summary") or record.get("details", ""))[:200],
            severity=_severity(record),
            published=record.get("published"),
            modified=record.get("modified"),
            withdrawn=record.get("withdrawn"),
            affected=tuple(_ranges(record)),
        )
    except (ValidationError, TypeError, AttributeError, KeyError) as error:
        raise AdvisoryError(f"{file}: record {record.get('id')} is no OSV record: {error}") from error


def _severity(record: Mapping[str, Any]) -> str | None:
    """Take the word that the database gives; without one, say from a CVSS v3 vector what its base metrics say."""
    places = [record, *record.get("affected", ())]
    for place in places:
        for block in ("database_specific", "ecosystem_specific"):
            word = str(
                (place.get(block) or {}).get("severity") or (place.get(block) or {}).get("urgency") or ""
            ).lower()
            if word in SEVERITIES:
                return {"moderate": "medium", "negligible": "low", "unimportant": "low"}.get(word, word)
    vectors = [str(item.get("score", "")) for item in record.get("severity", ())]
    return next((_vector_severity(vector) for vector in vectors if vector.startswith("CVSS:3")), None)


def _vector_severity(vector: str) -> str:
    """Rate a CVSS v3 vector by exploitability and impact: network without privileges and high impact is critical."""
    parts = dict(part.split(":", 1) for part in vector.split("/")[1:] if ":" in part)
    high = sum(parts.get(key) == "H" for key in ("C", "I", "A"))
    remote = parts.get("AV") == "N" and parts.get("PR") == "N" and parts.get("UI") == "N"
    if remote and high >= 2 and parts.get("AC") == "L":
        return "critical"
    if high and (remote or high >= 2):
        return "high"
    return "medium" if high or remote else "low"


def _ranges(record: Mapping[str, Any]) -> Iterator[AffectedRange]:
    for affected in record.get("affected", ()):
        package = affected.get("package") or {}
        if not package.get("name"):
            continue
        ecosystem, name = str(package.get("ecosystem", "")), str(package["name"])
        for item in affected.get("ranges", ()):
            if item.get("type") not in ("ECOSYSTEM", "SEMVER"):
                continue
            introduced: str | None = None
            for event in item.get("events", ()):
                if "introduced" in event:
                    introduced = str(event["introduced"])
                elif "fixed" in event and introduced is not None:
                    yield AffectedRange(
                        ecosystem=ecosystem, package=name, introduced=introduced, fixed=str(event["fixed"])
                    )
                    introduced = None
                elif "last_affected" in event and introduced is not None:
                    last = str(event["last_affected"])
                    yield AffectedRange(ecosystem=ecosystem, package=name, introduced=introduced, last_affected=last)
                    introduced = None
            if introduced is not None:
                yield AffectedRange(ecosystem=ecosystem, package=name, introduced=introduced)
