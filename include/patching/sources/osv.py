"""Advisories in the OSV format (https://ossf.github.io/osv-schema/): files, lists, or folders of files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from patching.advisory import Advisory, AffectedRange
from patching.assess.exploitation import marked
from patching.errors import AdvisoryError
from patching.sources import exploited_list
from patching.sources.cvss import base_score, severity_of
from patching.version_order import compare, known_ecosystem

WORDS = {"moderate": "medium", "important": "high", "negligible": "low", "unimportant": "low"}
SEVERITIES = ("critical", "high", "medium", "low")
LONGEST_SUMMARY = 200


def read_advisories(path: Path) -> tuple[Advisory, ...]:
    """Read every advisory of a file or folder, in order of their ids; raises AdvisoryError with file and record.

    A file ``known_exploited_vulnerabilities.json`` beside them (CISA's list) marks what is exploited. Of two records
    with one id the later modified one counts. Hidden files are left out: a feed is often written beside its place.
    """
    if not path.exists():
        raise AdvisoryError(
            f"there are no advisories at {path}: put OSV records there, or correct spec.patches.advisories"
        )
    folder = path if path.is_dir() else path.parent
    files = [file for file in _files(path) if file.name != exploited_list.FILE_NAME]
    lists = sorted(folder.glob(f"**/{exploited_list.FILE_NAME}"))
    exploited = frozenset(name for file in lists for name in exploited_list.read(file).ids)
    found: dict[str, Advisory] = {}
    for file in files:
        for number, record in enumerate(_records(file), 1):
            (advisory,) = marked([_advisory(file, number, record)], exploited)
            if advisory.id not in found or _later(advisory, found[advisory.id]):
                found[advisory.id] = advisory
    return tuple(found[name] for name in sorted(found))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.glob("**/*.json") if not file.name.startswith("."))


def _later(one: Advisory, other: Advisory) -> bool:
    return one.modified is not None and (other.modified is None or one.modified >= other.modified)


def _load(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise AdvisoryError(f"{file} cannot be read: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise AdvisoryError(f"{file}:{error.lineno}:{error.colno}: this is no JSON: {error.msg}") from error
    except ValueError as error:
        raise AdvisoryError(f"{file} is not UTF-8: {error}") from error


def _records(file: Path) -> Iterator[Mapping[str, Any]]:
    document = _load(file)
    for number, record in enumerate(document if isinstance(document, list) else [document], 1):
        if not isinstance(record, dict) or not isinstance(record.get("id"), str) or not record["id"]:
            raise AdvisoryError(f"{file}: record {number} has no id; each must be an OSV record")
        yield record


def _advisory(file: Path, number: int, record: Mapping[str, Any]) -> Advisory:
    try:
        score = _score(record)
        return Advisory(
            id=record["id"],
            aliases=tuple(dict.fromkeys([*(record.get("aliases") or ()), *(record.get("upstream") or ())])),
            summary=str(record.get("summary") or record.get("details") or "")[:LONGEST_SUMMARY],
            severity=_stated_severity(record) or (severity_of(score) if score is not None else None),
            score=score,
            published=record.get("published"),
            modified=record.get("modified"),
            withdrawn=record.get("withdrawn"),
            irreversible=_irreversible(record),
            affected=tuple(_affected(record)),
        )
    except (ValidationError, TypeError, AttributeError, KeyError, ValueError) as error:
        said = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()) if isinstance(
            error, ValidationError
        ) else str(error)  # fmt: skip
        raise AdvisoryError(f"{file}: record {number} ({record['id']}) is no OSV record: {said}") from error


def _score(record: Mapping[str, Any]) -> float | None:
    """Give the highest CVSS v3 base score that the record or its affected packages state."""
    places = [record, *(record.get("affected") or ())]
    vectors = [str(item.get("score", "")) for place in places for item in place.get("severity") or ()]
    return max((score for vector in vectors if (score := base_score(vector)) is not None), default=None)


def _stated_severity(record: Mapping[str, Any]) -> str | None:
    """Give the most severe word of the database; ``urgency`` is Debian's."""
    said = set()
    for place in (record, *(record.get("affected") or ())):
        for block in ("database_specific", "ecosystem_specific"):
            content = place.get(block) or {}
            for key in ("severity", "urgency"):
                word = str(content.get(key) or "").lower().strip("*")
                said.add(WORDS.get(word, word))
    return next((word for word in SEVERITIES if word in said), None)


def _irreversible(record: Mapping[str, Any]) -> str | None:
    """Give the sentence of ``database_specific.irreversible``; OSV itself has no word for it."""
    said = (record.get("database_specific") or {}).get("irreversible")
    if not said:
        return None
    return str(said)[:LONGEST_SUMMARY] if said is not True else "its advisory says so"


def _affected(record: Mapping[str, Any]) -> Iterator[AffectedRange]:
    for affected in record.get("affected") or ():
        package = affected.get("package") or {}
        if not package:
            continue  # a repository only (GIT ranges): there is no package to look for on a host
        ecosystem, name = str(package["ecosystem"]), str(package["name"])
        ranges = [item for item in affected.get("ranges") or () if item["type"] in ("ECOSYSTEM", "SEMVER")]
        for item in ranges:
            yield from _range(ecosystem, name, item["events"])
        if not ranges:
            for version in affected.get("versions") or ():
                yield AffectedRange(
                    ecosystem=ecosystem, package=name, introduced=str(version), last_affected=str(version)
                )


def _range(ecosystem: str, name: str, events: Sequence[Mapping[str, Any]]) -> Iterator[AffectedRange]:
    """Turn events into ranges: each from an `introduced` to the next `fixed` or `last_affected` above it."""
    introduced: str | None = None
    for kind, version in _in_order(ecosystem, [next(iter(event.items())) for event in events]):
        if kind == "introduced":
            introduced = version if introduced is None else introduced
        elif kind == "fixed" and introduced is not None:
            yield AffectedRange(ecosystem=ecosystem, package=name, introduced=introduced, fixed=version)
            introduced = None
        elif kind == "last_affected" and introduced is not None:
            yield AffectedRange(ecosystem=ecosystem, package=name, introduced=introduced, last_affected=version)
            introduced = None
    if introduced is not None:
        yield AffectedRange(ecosystem=ecosystem, package=name, introduced=introduced)


def _in_order(ecosystem: str, events: Sequence[tuple[str, Any]]) -> list[tuple[str, str]]:
    """Sort events by version; the schema does not promise an order. Nearly all have two, where kinds tell the order."""
    said = [(kind, str(version)) for kind, version in events]
    if not any(kind == "introduced" for kind, _ in said):
        raise ValueError("a range has no `introduced` event")
    kinds = [kind for kind, _ in said]
    if len(said) <= 2 and len(set(kinds)) == len(kinds):
        return sorted(said, key=lambda event: event[0] != "introduced")
    if not known_ecosystem(ecosystem):
        return said
    ordered: list[tuple[str, str]] = []
    for event in said:
        place = len(ordered)
        while place and _before(ecosystem, event, ordered[place - 1]):
            place -= 1
        ordered.insert(place, event)
    return ordered


def _before(ecosystem: str, one: tuple[str, str], other: tuple[str, str]) -> bool:
    if "0" in (one[1], other[1]):  # "0" stands for before every version, whatever the ecosystem's rules say
        return one[1] == "0" and other[1] != "0"
    return compare(ecosystem, one[1], other[1]) < 0
