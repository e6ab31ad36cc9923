"""Site: everything a rollout needs from outside, composed once; Airflow, the CLI and tests each build their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from patching.channels.base import Channel
from patching.drivers.base import PatchDriver
from patching.ledger.base import Ledger
from patching.sources.base import Clock, ConnectionSource, MetricSource


@dataclass(frozen=True)
class Site:
    """The outside world of a rollout: state, time, connections, and factories for what is named in a policy.

    ``crash`` is called with the name of each crash point; production does nothing there, fault tests kill the process.
    """

    ledger: Ledger
    clock: Clock
    connections: ConnectionSource
    channel: Callable[[str], Channel]
    driver: Callable[[str, dict[str, object]], PatchDriver]
    metrics: Callable[[str], MetricSource]
    inventory_dir: Path
    owner: str
    crash: Callable[[str], None] = field(default=lambda _point: None)
    log: Callable[[str], None] = field(default=lambda _line: None)
