"""Site: everything a rollout needs from outside, composed once; Airflow, the CLI and tests each build their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from patching.channels.base import Channel
from patching.drivers.base import PatchDriver
from patching.errors import ConnectionMissing
from patching.ledger.base import Ledger
from patching.policy_metrics import HttpJsonCheck
from patching.sources.base import Clock, ConnectionSource, GaugeSource, MetricSource, PolledSource


def _names_are_people(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(names)


def _no_database(name: str) -> GaugeSource:
    raise ConnectionMissing(f'connection "{name}" does not exist: no database is read here')


def _no_polling(check: HttpJsonCheck) -> PolledSource:
    raise ConnectionMissing(f'connection "{check.connection}" does not exist: no service is asked here')


@dataclass(frozen=True)
class Site:
    """The outside world of a rollout: state, time, connections, and factories for what is named in a policy.

    ``people`` resolves approver groups to user names. ``run_active`` says whether a DAG run (``dag::run``) is still at
    work, None when nobody knows it, and ``run_lost`` how one that wrote no report was lost, None where a person ended
    it or nobody can tell. ``crash`` is called with the name of each crash point: production does nothing there, fault
    tests kill the process. ``lease_ttl``, ``patience`` (how long the ledger may be gone, and how long an
    undo waits for a place that nobody leaves) and ``poll`` (how often a host
    that reboots, or a place among those, is looked for again) are seconds.
    ``look_every`` is how often (seconds) the error budgets are looked at while a wave is applied.
    ``pause`` lets that many seconds of ``clock`` pass before a target's next try.
    """

    ledger: Ledger
    clock: Clock
    connections: ConnectionSource
    channel: Callable[[str], Channel]
    driver: Callable[[str, dict[str, object]], PatchDriver]
    metrics: Callable[[str], MetricSource]
    policies_dir: Path
    owner: str
    databases: Callable[[str], GaugeSource] = _no_database
    polled: Callable[[HttpJsonCheck], PolledSource] = _no_polling
    people: Callable[[Sequence[str]], tuple[str, ...]] = _names_are_people
    run_active: Callable[[str], bool | None] = field(default=lambda _run: None)
    run_lost: Callable[[str], str | None] = field(default=lambda _run: None)
    crash: Callable[[str], None] = field(default=lambda _point: None)
    log: Callable[[str], None] = field(default=lambda _line: None)
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    lease_ttl: float = 30.0
    patience: float = 900.0
    concurrency: int = 50
    poll: float = 1.0
    look_every: float = 60.0
