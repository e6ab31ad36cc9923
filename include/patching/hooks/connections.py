"""Connections that hooks and notifications need and that do not exist: said when planning, before anybody approves."""

from __future__ import annotations

from patching.change import Refusal
from patching.errors import ConnectionMissing
from patching.policy import Policy
from patching.sources.base import ConnectionSource


def hooks_unconnected(policy: Policy, connections: ConnectionSource) -> tuple[Refusal, ...]:
    """Warn of each hook whose connection is missing; its targets would fail untouched, or go on without it."""
    found = []
    for hook in policy.spec.hooks:
        if hook.connection is None or _exists(connections, hook.connection):
            continue
        then = "the target would fail before it is touched" if hook.must else "it would be passed over"
        message = f'hook "{hook.title}" needs connection "{hook.connection}", which does not exist: {then}'
        remedy = "define the connection in Airflow before the rollout begins"
        found.append(Refusal(code="hook-connection", message=message, remedy=remedy, blocking=False))
    return tuple(found)


def notify_unconnected(policy: Policy, connections: ConnectionSource) -> list[str]:
    """Say which notifications nobody would get, one sentence for each missing connection."""
    names = dict.fromkeys(item.connection for item in policy.spec.notify)
    return [
        f'connection "{name}" of "notify" does not exist: what should be told over it is told to nobody until it does'
        for name in names
        if not _exists(connections, name)
    ]


def _exists(connections: ConnectionSource, name: str) -> bool:
    try:
        connections.get(name)
    except ConnectionMissing:
        return False
    return True
