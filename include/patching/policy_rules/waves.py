"""Rules about waves, budgets and reboots: a canary first, growing sizes, everything at the end."""

from __future__ import annotations

from collections.abc import Iterator

from patching.policy import RolloutRules, SequentialTest, Spec, WaveRule
from patching.policy_rules.finding import Wrong
from patching.quantity import fraction

MAX_WAVES = 8
_HERE = ("spec", "rollout")


def breaches(spec: Spec) -> Iterator[Wrong]:
    """Check waves, the number unavailable at once, budgets and timeouts."""
    rollout = spec.rollout
    yield from _unavailable(rollout)
    yield from _shape(rollout.waves)
    yield from _sizes(rollout.waves)
    yield from _budgets(rollout)
    if spec.reboot.timeout <= 0:
        yield Wrong(("spec", "reboot", "timeout"), "a reboot needs time; write for example 15m", "zero-timeout")
    if spec.on_failure.quarantine and spec.on_failure.quarantine_for <= 0:
        message = "a quarantine of no time is none; write for example 14d, or quarantine: false"
        yield Wrong(("spec", "onFailure", "quarantineFor"), message, "zero-timeout")


def _unavailable(rollout: RolloutRules) -> Iterator[Wrong]:
    given = rollout.max_unavailable
    if given == 0 or fraction(given) == 0:
        message = f'"maxUnavailable" is {given}, so nothing could ever be patched; write at least 1 or 1%'
        yield Wrong((*_HERE, "maxUnavailable"), message, "max-unavailable")


def _shape(waves: tuple[WaveRule, ...]) -> Iterator[Wrong]:
    at = (*_HERE, "waves")
    if len(waves) > MAX_WAVES:
        yield Wrong(at, f"{len(waves)} waves; at most {MAX_WAVES} are possible", "too-many-waves", key=True)
    if not waves:
        yield Wrong(at, "there are no waves; begin with a canary, or leave the key out", "canary-first", key=True)
        return
    if waves[0].canary is None:
        message = "the first wave is no canary; begin with {canary: {count: 1}, soak: 30m}"
        yield Wrong((*at, 0), message, "canary-first")
    for index, wave in enumerate(waves):
        if (wave.canary is None) == (wave.size is None):
            both = "both" if wave.canary is not None else "neither"
            yield Wrong((*at, index), f'a wave has either "canary" or "size", this one has {both}', "wave-kind")
        elif index and wave.canary is not None:
            message = "a canary comes first; later waves have a size"
            yield Wrong((*at, index, "canary"), message, "canary-first", key=True)


def _sizes(waves: tuple[WaveRule, ...]) -> Iterator[Wrong]:
    at = (*_HERE, "waves")
    last: int | str = 0
    for index, wave in enumerate(waves):
        if wave.size is None:
            continue
        here, before = fraction(wave.size), fraction(last)
        if here is None and before is not None:
            message = f"size {wave.size} follows {last}, and the two cannot be compared; write a percentage"
            yield Wrong((*at, index, "size"), message, "wave-order")
        elif (here is None) == (before is None) and float(_number(wave.size)) <= float(_number(last)):
            message = f"size {wave.size} does not grow: sizes are cumulative, and the one before is {last}"
            yield Wrong((*at, index, "size"), message, "wave-order")
        elif here == 0:
            yield Wrong((*at, index, "size"), f"size {wave.size} is nobody", "wave-order")
        last = wave.size
    if waves and (waves[-1].size is None or fraction(waves[-1].size) != 1):
        shown = "a canary" if waves[-1].size is None else str(waves[-1].size)
        place = (*at, len(waves) - 1) if waves[-1].size is None else (*at, len(waves) - 1, "size")
        yield Wrong(place, f"the last wave is {shown}; it must be {{size: 100%}}, or targets are left out", "last-wave")


def _number(size: int | str) -> float:
    share = fraction(size)
    return float(size) if share is None else share


def _budgets(rollout: RolloutRules) -> Iterator[Wrong]:
    stop = rollout.stop_when
    shares = {
        ("failedPercent",): stop.failed_percent,
        ("driftedPercent",): stop.drifted_percent,
        ("offlinePercent",): stop.offline_percent,
        ("fleet", "failedPercent"): stop.fleet.failed_percent,
    }
    if stop.sequential is not None:
        shares |= {
            ("sequential", "acceptable"): stop.sequential.acceptable,
            ("sequential", "unacceptable"): stop.sequential.unacceptable,
        }
        yield from _rates(stop.sequential)
    for place, value in shares.items():
        if value is not None and fraction(value) is None:
            message = f'"{place[-1]}" is a share; write {value}%'
            yield Wrong((*_HERE, "stopWhen", *place), message, "needs-percent")


def _rates(rules: SequentialTest) -> Iterator[Wrong]:
    good, bad = fraction(rules.acceptable), fraction(rules.unacceptable)
    if good is None or bad is None or 0 < good < bad < 1:
        return
    message = (
        f"failure rates {rules.acceptable} and {rules.unacceptable} cannot be told apart; the acceptable one must be "
        "above 0% and below the unacceptable one, which is below 100%"
    )
    yield Wrong((*_HERE, "stopWhen", "sequential"), message, "sequential-rates")
