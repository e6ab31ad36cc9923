"""Rules about checks: one kind each, probes that can pass, comparisons that can be made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from patching.policy import METRIC_KINDS, Check, Spec
from patching.policy_rules import metrics
from patching.policy_rules.finding import Wrong
from patching.policy_rules.templates import whole_url
from patching.quantity import fraction

KINDS = (*METRIC_KINDS, "http", "command", "unit")

_Loc = tuple[str | int, ...]


def breaches(spec: Spec) -> Iterator[Wrong]:
    """Check every entry of ``verify``."""
    names = Counter(check.name for check in spec.verify)
    for index, check in enumerate(spec.verify):
        at: _Loc = ("spec", "verify", index)
        if names[check.name] > 1:
            yield Wrong((*at, "name"), f'two checks are called "{check.name}"', "duplicate-name")
        yield from _kind(at, check)
        yield from _probe(at, check)
        yield from metrics.breaches(at, check, spec.rollout)
        yield from _compare((*at, "compare"), check)
    measured = any(check.metric is not None for check in spec.verify)
    if measured and spec.rollout.watch and not any(check.metric and check.metric.history for check in spec.verify):
        message = "what is asked only during the rollout cannot be watched after it; add a check with a history"
        yield Wrong(("spec", "rollout", "watch"), message, "no-history")
    if measured and spec.rollout.waves and spec.rollout.waves[0].soak <= 0:
        message = "the canary does not soak, so the metrics would say nothing; write for example soak: 30m"
        yield Wrong(("spec", "rollout", "waves", 0), message, "canary-soak")


def _kind(at: _Loc, check: Check) -> Iterator[Wrong]:
    given = [kind for kind in KINDS if getattr(check, METRIC_KINDS.get(kind, kind)) is not None]
    if len(given) != 1:
        shown = " and ".join(f'"{kind}"' for kind in given) or "none"
        message = f'the check "{check.name}" needs exactly one of {", ".join(KINDS)}; it has {shown}'
        yield Wrong((*at, "name"), message, "check-kind")


def _probe(at: _Loc, check: Check) -> Iterator[Wrong]:
    for kind in ("http", "command"):
        probe = getattr(check, kind)
        if probe is not None and probe.timeout <= 0:
            yield Wrong((*at, kind, "timeout"), "a probe needs time; write for example 10s", "zero-timeout")
    if check.unit is not None and not check.unit.active:
        message = '"active" is empty, so the check would prove nothing; name a unit'
        yield Wrong((*at, "unit", "active"), message, "empty-list", key=True)
    if check.http is not None:
        yield from whole_url((*at, "http", "url"), check.http.url)
        if not check.http.status:
            message = '"status" is empty, so no answer could ever pass; leave the key out for [200]'
            yield Wrong((*at, "http", "status"), message, "empty-list", key=True)


def _compare(at: _Loc, check: Check) -> Iterator[Wrong]:
    compare, written = check.compare, check.compare.model_fields_set
    if check.metric is None and written:
        kinds = "http, command and unit checks pass or fail by themselves"
        metrics = " or ".join(f'"{kind}"' for kind in METRIC_KINDS)
        yield Wrong(at, f'"compare" needs {metrics}; {kinds}', "check-compare", key=True)
        return
    if "against" in written and not compare.against:
        yield Wrong((*at, "against"), '"against" is empty, so nothing could be compared', "empty-list", key=True)
    if "against" in written and "threshold" in compare.against and compare.threshold is None:
        message = '"against" lists "threshold", but no threshold is given; add for example threshold: 2%'
        yield Wrong((*at, "against"), message, "check-threshold")
    if check.metric is not None and check.metric.gauge and compare.threshold is not None:
        yield Wrong((*at, "threshold"), '"threshold" is a share of errors; a gauge has none', "check-threshold")
    if check.http_json is not None and "control" not in compare.against:
        message = "what is asked only during the rollout has no time before its first wave; list control as well"
        yield Wrong((*at, "against"), message, "no-history")
    if compare.threshold is not None and "threshold" not in compare.against:
        message = '"threshold" is given, but "against" does not list it, so it would never be used'
        yield Wrong((*at, "threshold"), message, "check-threshold")
    for key, value in (("threshold", compare.threshold), ("maxRelativeIncrease", compare.max_relative_increase)):
        if value is not None and fraction(value) is None:
            yield Wrong((*at, key), f'"{key}" is a share; write {value}%', "needs-percent")
