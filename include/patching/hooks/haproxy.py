"""Drain hook: the target's server gets no new sessions at HAProxy during its change, and is given back as it was.

Only servers that were in service before are drained, and only those are made ready again: what somebody else drained
or put into maintenance stays as it is. How it was before is a part of the entering step, so it is in the ledger
before anything is done and outlives a crash.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence

from patching.change import Outcome, Phase, Reply, Step, StepKind
from patching.diagnostics import did_you_mean
from patching.hooks.base import HookImpossible, step_name
from patching.placeholders import fill
from patching.policy_hooks import Hook
from patching.target import Target
from patching.value import Value

MAINTENANCE = 0x01 | 0x02 | 0x04 | 0x20
"""Bits of ``srv_admin_state``: forced, inherited, by configuration, by name resolution (management.txt of HAProxy)."""
DRAINED = 0x08
DRAINED_ABOVE = 0x10
SPARE = 10.0


class ServerState(Value):
    """One server of one backend: its administrative state (bits) and how many sessions it has now."""

    backend: str
    server: str
    admin: int
    sessions: int = 0

    @property
    def in_service(self) -> bool:
        """Whether nobody has taken it out of service; a failing health check is not somebody."""
        return not self.admin & (MAINTENANCE | DRAINED | DRAINED_ABOVE)

    @property
    def only_drained(self) -> bool:
        """Whether it is drained and nothing more, as we leave it."""
        return bool(self.admin & DRAINED) and not self.admin & MAINTENANCE


def parse_states(servers_state: str, stat: str) -> list[ServerState]:
    """Read the answers to ``show servers state`` and ``show stat``; raises HookImpossible for anything else."""
    lines = [line for line in servers_state.splitlines() if line.strip()]
    if len(lines) < 2 or not lines[1].startswith("# "):
        raise HookImpossible(f"HAProxy does not tell its servers: {servers_state.strip()[:200] or 'no answer'}")
    names = lines[1][2:].split()
    sessions = _sessions(stat)
    found = []
    for line in lines[2:]:
        row = dict(zip(names, line.split(), strict=False))
        key = (row["be_name"], row["srv_name"])
        found.append(
            ServerState(backend=key[0], server=key[1], admin=int(row["srv_admin_state"]), sessions=sessions.get(key, 0))
        )
    return found


def _sessions(stat: str) -> dict[tuple[str, str], int]:
    rows = csv.DictReader(io.StringIO(stat.lstrip("# ")))
    return {(row["pxname"], row["svname"]): int(row["scur"] or 0) for row in rows if row.get("scur") is not None}


class HaproxyKind:
    """Acts on HAProxy's runtime socket, which the channel ``haproxy`` speaks."""

    def look(self, hook: Hook, target: Target) -> Step | None:
        """Ask how every server stands now."""
        return _step(hook, Phase.ENTER, StepKind.READ, {"op": "states"}, hook.timeout)

    def enter(self, hook: Hook, target: Target, rollout: str, seen: Reply | None) -> Step | None:
        """Drain the target's servers that are in service; raises HookImpossible when HAProxy knows none of its name."""
        states = [ServerState.model_validate(item) for item in json.loads(seen.stdout)] if seen is not None else []
        mine = servers_of(states, hook, target)
        call = {
            "op": "drain",
            "servers": [[item.backend, item.server] for item in mine if item.in_service],
            "before": {f"{item.backend}/{item.server}": item.admin for item in mine},
            "wait": hook.wait,
            "fail_on_sessions": hook.on_sessions_left == "fail",
        }
        return _step(hook, Phase.ENTER, StepKind.ACT, call, hook.wait + 3 * hook.timeout + SPARE)

    def leave(self, hook: Hook, target: Target, rollout: str, outcome: Outcome, entered: Step) -> Step | None:
        """Make ready what was drained by us."""
        call = {"op": "restore", "servers": entered.call["servers"]}
        return _step(hook, Phase.LEAVE, StepKind.ACT, call, 3 * hook.timeout + SPARE)


def servers_of(states: Sequence[ServerState], hook: Hook, target: Target) -> list[ServerState]:
    """Find the servers of a target; raises HookImpossible with the nearest name where there is none."""
    wanted = fill(hook.server, target)
    here = [item for item in states if hook.backend in (None, item.backend)]
    found = [item for item in here if item.server == wanted]
    if found:
        return found
    where = f'backend "{hook.backend}"' if hook.backend else "any backend"
    near = did_you_mean(wanted, sorted({item.server for item in here}))
    raise HookImpossible(
        f'HAProxy of connection "{hook.connection}" has no server "{wanted}" in {where}{near}: nothing was drained; '
        "correct server or backend of the hook"
    )


def still_busy(states: Sequence[ServerState], servers: Sequence[Sequence[str]]) -> Mapping[str, int]:
    """Give the sessions that are left on the named servers, without those that have none."""
    wanted = {tuple(item) for item in servers}
    mine = [item for item in states if (item.backend, item.server) in wanted]
    return {f"{item.backend}/{item.server}": item.sessions for item in mine if item.sessions}


def _step(hook: Hook, phase: Phase, kind: StepKind, call: dict[str, object], deadline: float) -> Step:
    whole = {"connection": hook.connection, "timeout": hook.timeout, "repeatable": True, **call}
    return Step(name=step_name(hook), phase=phase, kind=kind, channel="haproxy", call=whole, deadline=deadline)
