"""Discovery: which rollout this run works on, and what the targets run now; offline is never silently dropped."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta

from patching.change import Outcome
from patching.errors import FenceLost, InventoryError, LedgerConflict, LedgerUnavailable, PatchingError, PlanError
from patching.ledger.base import Busy, Claim, Fence, RolloutRow
from patching.ledger.entry import CONTROL, EntryKind, NewEntry
from patching.limits import load_limits
from patching.plan.document import Plan
from patching.plan.selection import matches, select_targets
from patching.plan.windows import open_window
from patching.policy import Policy
from patching.report.sentences import names
from patching.rollout.adoption import NO_NEWS, carried_over, decide
from patching.rollout.answers import Discovered, Request
from patching.rollout.incidents import lock_of
from patching.rollout.late import WAITS, joined, note_joined
from patching.rollout.new_findings import news_since
from patching.rollout.probing import probe_fleet
from patching.rollout.record import first_written, frozen_plan, rollout_of_run, run_key
from patching.rollout.site import Site
from patching.rollout.states import RolloutState
from patching.sources.inventory_file import resolve_inventory
from patching.target import Target
from patching.value import digest

UNSETTLED = (None, Outcome.UNKNOWN)
CLAIM_TRIES = 600
CLAIM_PAUSE = 0.2
OTHER_RUN_PAUSE = timedelta(minutes=1)


async def discover(site: Site, policy: Policy, request: Request) -> Discovered:
    """Open, adopt or supersede the policy's one rollout for this run, and take the snapshots that a new plan needs.

    Idempotent per run. Raises InventoryError, LedgerUnavailable, ConnectionMissing; then nothing was begun.
    """
    targets = _targets(site, policy)
    mine = rollout_of_run(site, request.dag_id, request.run_id)
    if mine is not None:
        answer = Discovered(rollout=mine, adopted=True, sentence="this run goes on where it was interrupted")
    else:
        answer = await _claim(site, policy, request, targets)
    if answer.yields_to is not None:
        return answer
    if frozen_plan(site, answer.rollout) is not None or _snapshots(site, answer.rollout):
        return answer
    return await _look(site, policy, request, answer, targets)


def _targets(site: Site, policy: Policy) -> list[Target]:
    source = resolve_inventory(policy.spec.targets.inventory, site.policies_dir / "inventories", site.connections)
    targets = list(source.targets())
    if not targets:
        raise InventoryError(
            f'inventory "{policy.spec.targets.inventory}" has no targets at all: nothing was planned; '
            "check what fills it before the next window"
        )
    return targets


def _snapshots(site: Site, rollout: str) -> bool:
    return site.ledger.find(rollout, "snapshots:discover") is not None


async def _claim(site: Site, policy: Policy, request: Request, targets: list[Target]) -> Discovered:
    """Settle which rollout this run works on, one run after the other: two at once must not open two rollouts."""
    claims = [Claim(kind="policy", name=policy.name, limit=1)]
    for _ in range(CLAIM_TRIES):
        lease = site.ledger.acquire(site.owner, CONTROL, f"claim:{policy.name}", claims, ttl=site.lease_ttl)
        if isinstance(lease, Busy):
            await asyncio.sleep(CLAIM_PAUSE)
            continue
        fence = Fence(lease=lease.id, epoch=lease.epoch)
        try:
            return _claimed(site, policy, request, targets, fence)
        except FenceLost as error:
            # It slept for too long: whoever took over has decided, so it looks again.
            site.log(f"policy {policy.name}: {error}")
        finally:
            with contextlib.suppress(FenceLost):
                site.ledger.release(lease)
    raise LedgerConflict(f"policy {policy.name}: other runs are being set up all the time; trigger this one again")


def _claimed(site: Site, policy: Policy, request: Request, inventory: list[Target], fence: Fence) -> Discovered:
    """Decide under the claim; every entry that opens or joins a rollout is conditional on it."""
    mine = rollout_of_run(site, request.dag_id, request.run_id)
    if mine is not None:
        return Discovered(rollout=mine, adopted=True, sentence="this run goes on where it was interrupted")
    rows = [
        row for row in site.ledger.rollouts(policy=policy.name, open_only=True) if row.emergency == request.emergency
    ]
    locked = lock_of(site.ledger, policy.name)
    if locked is not None and not any(row.state is RolloutState.UNDOING for row in rows):
        raise PlanError(f"{locked.sentence}. Nothing was begun")
    for row in rows:
        if row.run is not None and row.run != run_key(request.dag_id, request.run_id) and site.run_active(row.run):
            return _behind(site, policy, row, request)
    if not rows:
        return _open(site, policy, request, "a new plan is made", fence)
    row, plan = rows[0], frozen_plan(site, rows[0].id)
    targets = site.ledger.targets(row.id)
    begun = any(item.began_at is not None for item in targets)
    news = news_since(site, plan, policy) if plan is not None else NO_NEWS
    unsettled = [item.target for item in targets if item.began_at is not None and item.outcome in UNSETTLED]
    choice = decide(row, plan, policy, request, site.clock(), begun=begun, news=news, unsettled=unsettled)
    applied = sum(item.outcome is Outcome.APPLIED for item in targets)
    left = sum(item.outcome is None for item in targets)
    if choice.adopt:
        said = f"goes on with rollout {row.id} ({carried_over(applied, left)}): {choice.reason}"
        said += "".join(f"; {more}" for more in (news.sentence, _joined(site, policy, plan, inventory)) if more)
        _begin_run(site, row.id, request, fence)
        return Discovered(rollout=row.id, adopted=True, sentence=said)
    said = f"rollout {row.id} is superseded ({carried_over(applied, left)}): {choice.reason}"
    site.ledger.transition(row.id, RolloutState.SUPERSEDED, reason=said, actor=request.requested_by)
    return _open(site, policy, request, f"{said}; a new plan is made", fence)


def look_for_joined(site: Site, plan: Plan) -> str:
    """Read the inventory anew and write down who joined it since planning; gives the sentence, empty where nobody did.

    An inventory that cannot be read names nobody now; the sentence says so.
    """
    try:
        return _joined(site, plan.policy, plan, _targets(site, plan.policy))
    except PatchingError as error:
        if isinstance(error, LedgerUnavailable):
            raise
        return f"who joined after planning is not known: {error}"


def _joined(site: Site, policy: Policy, plan: Plan | None, inventory: list[Target]) -> str:
    """Write down which targets joined the inventory after planning, and say that they wait; nobody is forgotten."""
    if plan is None:
        return ""
    selector = policy.spec.targets.selector
    new = joined(plan, [target for target in inventory if matches(selector, target)])
    note_joined(site, plan, new)
    return f"{names(new)} joined after planning: {WAITS}" if new else ""


def waits_for_other(policy: Policy, request: Request, now: datetime) -> datetime | None:
    """Say when a run that finds another at work asks again; None when it has nothing to wait for and yields.

    A run that only plans yields, for the open plan is the answer; a scheduled one waits while its window is open.
    """
    if "plan" in (policy.spec.mode, request.mode):
        return None
    again = now + OTHER_RUN_PAUSE
    if not request.scheduled:
        return again
    window = open_window(policy.spec.schedule, now)
    if window is None:
        return None
    return again if window.closes is None else min(again, window.closes)


def _behind(site: Site, policy: Policy, row: RolloutRow, request: Request) -> Discovered:
    """Wait for the run that is at work and decide anew after it, or leave the rollout to it for good."""
    again = waits_for_other(policy, request, site.clock())
    if again is not None:
        said = f"waits for run {row.run}, which is at work on rollout {row.id}, and then decides anew"
        return Discovered(rollout=row.id, adopted=False, yields_to=row.run, again_at=again, sentence=said)
    said = f"run {row.run} is at work on rollout {row.id}: this run leaves it to it"
    body = {"rollout": None, "sentence": said, "request": request.model_dump(mode="json")}
    key = f"run:{request.dag_id}:{request.run_id}"
    site.ledger.append(NewEntry(chain=CONTROL, kind=EntryKind.RUN_BEGAN, key=key, body=body))
    return Discovered(rollout=row.id, adopted=False, yields_to=row.run, sentence=said)


def _open(site: Site, policy: Policy, request: Request, why: str, fence: Fence) -> Discovered:
    earlier = len(site.ledger.rollouts(policy=policy.name, limit=1_000_000))
    name = f"{policy.name}-{site.clock():%Y%m%d-%H%M%S}-{earlier + 1}"
    key = f"open:{policy.name}:{earlier + 1}"
    interrupted = site.ledger.find(CONTROL, key)
    if interrupted is not None:
        name = str(interrupted.body["rollout"])
    opening = NewEntry(chain=CONTROL, kind=EntryKind.RUN_BEGAN, key=key, body={"rollout": name})
    document = site.ledger.store_document("policy", policy.model_dump(mode="json"))
    opened = {"policy": policy.name, "emergency": request.emergency, "requested_by": request.requested_by}
    site.ledger.append(opening, fence)
    site.ledger.append_all(
        [
            NewEntry(chain=name, kind=EntryKind.ROLLOUT_OPENED, key="opened", body=opened),
            NewEntry(
                chain=name, kind=EntryKind.POLICY_FROZEN, key="policy", body={"policy": document, "is": digest(policy)}
            ),
        ],
        fence,
    )
    _begin_run(site, name, request, fence)
    return Discovered(rollout=name, adopted=False, sentence=f"rollout {name}: {why}")


def _begin_run(site: Site, rollout: str, request: Request, fence: Fence) -> None:
    asked = request.model_dump(mode="json")
    run = run_key(request.dag_id, request.run_id)
    of_run = NewEntry(
        chain=CONTROL,
        kind=EntryKind.RUN_BEGAN,
        key=f"run:{request.dag_id}:{request.run_id}",
        body={"rollout": rollout, "request": asked},
        actor=request.requested_by,
    )
    of_rollout = NewEntry(
        chain=rollout,
        kind=EntryKind.RUN_BEGAN,
        key=f"run-began:{request.run_id}",
        body={"run": run, "mode": request.mode, "request": asked},
        actor=request.requested_by,
    )
    site.ledger.append_all([of_run, of_rollout], fence)


async def _look(site: Site, policy: Policy, request: Request, answer: Discovered, targets: list[Target]) -> Discovered:
    """Take a snapshot of every selected target and say what stands against a change of it."""
    chosen = select_targets(policy, targets, limit_to=request.limit_to)
    limits = load_limits(site.policies_dir)
    driver = policy.spec.driver
    driving = site.driver(driver.name, dict(driver.options))
    site.log(f"looking at {len(chosen.targets)} targets")
    snapshots = await probe_fleet(
        site.channel(driver.connection), driving, chosen.targets, {}, site.clock, concurrency=site.concurrency
    )
    document = site.ledger.store_document(
        "snapshots",
        {
            "targets": [target.model_dump(mode="json") for target in chosen.targets],
            "snapshots": {name: found.model_dump(mode="json") for name, found in snapshots.items()},
            "exclusions": [item.model_dump(mode="json") for item in chosen.exclusions],
            "limits": limits.model_dump(mode="json"),
            "population": limits.population(targets),
        },
    )
    body = {"stage": "discover", "snapshots": document}
    key = "snapshots:discover"
    first_written(site.ledger, NewEntry(chain=answer.rollout, kind=EntryKind.SNAPSHOTS_TAKEN, key=key, body=body))
    online = sum(found.online for found in snapshots.values())
    counted = {"online": online, "offline": len(snapshots) - online}
    said = f"{answer.sentence}; {online} of {len(snapshots)} targets answer"
    return answer.model_copy(update={**counted, "sentence": said})
