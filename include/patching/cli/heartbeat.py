"""``patching heartbeat``: the dead man's switch. It asks the ledger, because Airflow may be what is dead."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated

import typer

from patching.cli.ledger import AsJson, Url, open_named
from patching.errors import LedgerError
from patching.ledger.base import Beat
from patching.quantity import format_duration, parse_duration
from patching.rollout.telling import RECONCILER

SCHEMA = "patching/heartbeat/v1"
METRIC = "patching_heartbeat_timestamp_seconds"


def heartbeat(
    max_age: Annotated[str, typer.Option(help="Age from which on silence is an alarm, such as 15m.")] = "15m",
    url: Url = "",
    as_json: AsJson = False,
    prometheus: Annotated[
        bool, typer.Option("--prometheus", help="Print metrics, for the text file collector of a node exporter.")
    ] = False,
) -> int:
    """Say when patch_reconcile was last heard of.

    Exit code 0: within --max-age. 1: longer ago, never, or the ledger cannot be read. For cron, a systemd timer or a
    Kubernetes probe on a machine that is not Airflow's: it needs the ledger's database and no Airflow.
    """
    limit = _seconds(max_age)
    ledger = open_named(url)
    beats, now = ledger.beats(), ledger.now()
    if prometheus:
        print(metrics(beats), end="")
    last = next((beat for beat in beats if beat.name == RECONCILER), None)
    good, sentence = judged(last, now, limit)
    if as_json:
        at = last.at.isoformat() if last else None
        print(json.dumps({"schema": SCHEMA, "good": good, "sentence": sentence, "last": at, "now": now.isoformat()}))
    elif not prometheus:
        print(sentence)
    return 0 if good else 1


def judged(last: Beat | None, now: datetime, limit: float) -> tuple[bool, str]:
    """Say whether a heartbeat is young enough (``limit`` in seconds), and the sentence that goes with it."""
    if last is None:
        return False, (
            f"nothing was ever heard from {RECONCILER}: lost rollouts are not looked after and nobody is told "
            "anything; start Airflow's scheduler and take the DAG off pause"
        )
    age = max((now - last.at).total_seconds(), 0.0)
    shown = format_duration(float(round(age)))
    if age <= limit:
        return True, f"{RECONCILER} was heard {shown} ago"
    return False, (
        f"{RECONCILER} was last heard {shown} ago, at {last.at:%Y-%m-%d %H:%M} UTC (limit {format_duration(limit)}): "
        "Airflow's scheduler or its workers are down, or the DAG is paused; see docs/how-to/notifications.md"
    )


def metrics(beats: list[Beat]) -> str:
    """Write heartbeats in Prometheus's text format."""
    lines = [f"# HELP {METRIC} When each was last heard of, by the ledger's clock.", f"# TYPE {METRIC} gauge"]
    lines += [f'{METRIC}{{name="{beat.name}"}} {beat.at.timestamp():.3f}' for beat in beats]
    return "\n".join(lines) + "\n"


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise LedgerError(f"--max-age: {error}") from error
