"""A saved answer of Prometheus's ``query_range`` → recorded rows; pure.

A series says what it is by its labels: ``target`` (else the label by which the policy finds a target, else
``instance``), ``role``, ``metric``, ``phase`` and ``wave``. What is not labelled comes from the guide: a series belongs
to the checks of the policy whose selectors match its labels; the canaries and the wave's start are told by the caller.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from patching.canary.recorded import RecordingUnreadable, Row, number, wave_number
from patching.policy import Check

_SELECTOR = re.compile(r"^\s*([a-zA-Z_:][a-zA-Z0-9_:]*)?\s*(?:\{(.*)\})?\s*$", re.DOTALL)
_MATCHER = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*"|\'[^\']*\')')
_PLACES = ("{name}", "{address}")


@dataclass(frozen=True)
class Guide:
    """What a plain answer does not say: the policy's metric checks, its canaries, and the wave's start (seconds)."""

    checks: tuple[Check, ...] = ()
    canaries: frozenset[str] = frozenset()
    start: float | None = None


def answer_rows(text: str, name: str, guide: Guide) -> Iterator[Row]:
    """Read one saved answer, or a JSON list of them; raises RecordingUnreadable with what is missing."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise RecordingUnreadable(f"{name}: this is no JSON ({error})") from error
    for answer in document if isinstance(document, list) else [document]:
        for index, item in enumerate(_matrix(answer, name)):
            yield from _rows(item, f"{name}: result {index}", guide)


def _matrix(answer: Any, name: str) -> list[Any]:
    if isinstance(answer, dict) and answer.get("status", "success") != "success":
        raise RecordingUnreadable(f"{name}: the answer is a failure: {answer.get('error', 'no reason given')}")
    data = answer.get("data", answer) if isinstance(answer, dict) else {}
    if not isinstance(data, dict) or data.get("resultType") != "matrix" or not isinstance(data.get("result"), list):
        raise RecordingUnreadable(f"{name}: this is no answer of query_range (data.resultType must be matrix)")
    result: list[Any] = data["result"]
    return result


def _rows(item: Any, place: str, guide: Guide) -> Iterator[Row]:
    if not isinstance(item, dict) or not isinstance(item.get("metric"), dict):
        raise RecordingUnreadable(f"{place}: it has no labels")
    labels = {str(key): str(value) for key, value in item["metric"].items()}
    target = _target(labels, guide, place)
    role = labels.get("role") or _role(target, guide, place)
    wave = wave_number(labels.get("wave", "1"), place)
    if role not in ("canary", "control"):
        raise RecordingUnreadable(f'{place}: role is "{role}"; it must be canary or control')
    identity = json.dumps(labels, sort_keys=True) if "phase" not in labels else _without_phase(labels)
    for at, value in _values(item, place):
        phase = labels.get("phase") or _phase(at, guide, place)
        for metric in _metrics(labels, guide):
            yield Row(at, wave, target, role, phase, metric, number(value, place), identity)


def _without_phase(labels: Mapping[str, str]) -> str:
    return json.dumps({key: value for key, value in labels.items() if key != "phase"}, sort_keys=True)


def _values(item: Mapping[str, Any], place: str) -> Iterator[tuple[float, str]]:
    try:
        for at, value in item.get("values", ()):
            yield float(at), str(value)
    except (TypeError, ValueError) as error:
        raise RecordingUnreadable(f"{place}: its values are no pairs of time and number ({error})") from error


def _target(labels: Mapping[str, str], guide: Guide, place: str) -> str:
    by = [
        label
        for check in guide.checks
        if check.prometheus is not None
        for label, pattern in check.prometheus.series.items()
        if any(item in pattern for item in _PLACES)
    ]
    for label in ("target", *by, "instance"):
        if labels.get(label):
            return labels[label]
    raise RecordingUnreadable(f"{place}: no label target, {', '.join(by) or 'instance'} says which target it is")


def _role(target: str, guide: Guide, place: str) -> str:
    if not guide.canaries:
        raise RecordingUnreadable(f"{place}: no label role; say with --canary which targets were changed")
    bare = target.rpartition(":")[0]
    return "canary" if target in guide.canaries or bare in guide.canaries else "control"


def _phase(at: float, guide: Guide, place: str) -> str:
    if guide.start is None:
        raise RecordingUnreadable(f"{place}: no label phase; say with --start when the wave began")
    return "before" if at <= guide.start else "after"


def _metrics(labels: Mapping[str, str], guide: Guide) -> list[str]:
    """Name what a series is: its label ``metric``, else each part of each check whose selector matches it."""
    if labels.get("metric"):
        return [labels["metric"]]
    found = []
    for check in guide.checks:
        rules = check.prometheus
        if rules is None:
            continue
        if rules.query is not None and matches(rules.query, labels):
            found.append(check.name)
        for part in ("errors", "good", "requests"):
            selector = getattr(rules, part)
            if selector is not None and matches(selector, labels):
                found.append(f"{check.name}_{part}")
    return found or [labels.get("__name__", "")]


def matches(selector: str, labels: Mapping[str, str]) -> bool:
    """Say whether a PromQL selector with ``$series`` matches a series' labels; anything else matches nothing."""
    parsed = _SELECTOR.match(selector.replace("$series", ""))
    if parsed is None:
        return False
    name, inside = parsed.group(1), parsed.group(2) or ""
    if name and labels.get("__name__") != name:
        return False
    return all(
        _match(labels.get(label, ""), operator, _unquoted(text)) for label, operator, text in _MATCHER.findall(inside)
    )


def _unquoted(text: str) -> str:
    return str(json.loads(text)) if text.startswith('"') else text[1:-1]


def _match(value: str, operator: str, wanted: str) -> bool:
    if operator in ("=", "!="):
        return (value == wanted) is (operator == "=")
    try:
        return (re.fullmatch(wanted, value) is not None) is (operator == "=~")
    except re.error:
        return False
