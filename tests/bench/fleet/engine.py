"""The contender that is ours: python -m bench.fleet.engine plan|apply PLACE LEDGER WINDOW; prints JSON facts."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from bench.fleet.composition import REQUEST, inventory, policy, site
from patching.rollout.wave import apply_wave


async def plan(place: dict[str, Any], ledger: str, window: int) -> dict[str, Any]:
    """Everything up to the open gate of the one wave: discover, plan, approve, prepare."""
    # What applies a wave, in a process of its own, needs none of these.
    from patching.rollout.approval import approval_request, decide, prepare
    from patching.rollout.discovery import discover
    from patching.rollout.gates import gate
    from patching.rollout.planning import make_plan

    inventory(place)
    made = site(place, ledger, concurrency=window)
    found = await discover(made, policy([{"size": "100%"}]), REQUEST)
    frozen = await make_plan(made, found.rollout)
    approval_request(made, found.rollout, REQUEST.run_id)
    decide(made, found.rollout, REQUEST.run_id, [])
    await prepare(made, found.rollout, REQUEST.run_id)
    answer = gate(made, found.rollout, 1, REQUEST.run_id)
    return {"rollout": found.rollout, "order": list(frozen.waves[0].targets), "gate": answer.state.value}


async def apply(place: dict[str, Any], ledger: str, window: int) -> dict[str, Any]:
    """Carry out the wave."""
    made = site(place, ledger, concurrency=window)
    (rollout,) = made.ledger.rollouts()
    began = time.perf_counter()
    answer = await apply_wave(made, rollout.id, 1, 0, 1, REQUEST.run_id, lambda: None)
    return {"window_s": time.perf_counter() - began, "counts": answer.counts, "sentence": answer.sentence}


def main() -> None:
    """Do one part; the peak of this process's memory is part of the facts."""
    what, place, ledger, window = sys.argv[1:5]
    work = {"plan": plan, "apply": apply}[what]
    found = asyncio.run(work(json.loads(Path(place).read_text()), ledger, int(window)))
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found))


if __name__ == "__main__":
    main()
