"""Who holds what since when, and who waits for whom (S4, S8): the document, and the words in a terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from patching.ledger.base import Claim, Lease, Waiter
from patching.ledger.entry import CONTROL
from patching.report.lease_view import HIDDEN, SILENT, lease_view, leases_text

NOW = datetime(2026, 11, 24, 22, 30, tzinfo=UTC)
AZ, WEB = Claim(kind="domain", name="web az=a", limit=1), Claim(kind="service", name="web", limit=2)


def lease(target: str, rollout: str = "r1", *claims: Claim, left: int = 20) -> Lease:
    return Lease(id=f"id-{target}", owner="w1", epoch=1, rollout=rollout, target=target, claims=claims,
                 expires_at=NOW + timedelta(seconds=left))  # fmt: skip


def waiter(target: str, rollout: str = "r1", *claims: Claim, minutes: int = 3) -> Waiter:
    return Waiter(rollout=rollout, target=target, owner="w1", claims=claims, since=NOW - timedelta(minutes=minutes))


HELD = [lease("a", "r1", AZ, WEB), lease("b", "r2", WEB, left=-5), lease("claim:web", CONTROL)]
WAITING = [waiter("c", "r1", AZ, WEB, minutes=9), waiter("d", "r2", WEB), waiter("e", "r1", WEB, minutes=1)]
SINCE = {"id-a": NOW - timedelta(minutes=12)}


def test_everything_that_is_full_is_named_with_who_holds_it() -> None:
    view = lease_view(HELD, WAITING, SINCE, NOW)
    assert [item["target"] for item in view["held"]] == ["a", "b"]
    assert [(c["name"], c["in_use"], c["limit"]) for c in view["held"][0]["claims"]] == [
        ("web az=a", 1, 1),
        ("web", 2, 2),
    ]
    assert view["waiting"][0]["sentence"] == (
        "waits for domain web az=a: 1 of 1 in use by a (rollout r1); "
        "waits for service web: 2 of 2 in use by a (rollout r1), b (rollout r2)"
    )


def test_who_has_room_but_not_his_turn_waits_behind_those_before_him() -> None:
    view = lease_view(HELD[:1], WAITING, SINCE, NOW)
    said = [item["sentence"] for item in view["waiting"]]
    assert said[1] == "waits for its turn at service web, behind c (rollout r1)"
    assert said[2] == "waits for its turn at service web, behind c (rollout r1), d (rollout r2)"


def test_rollouts_that_one_may_not_read_count_and_are_not_named() -> None:
    view = lease_view(HELD, WAITING, SINCE, NOW, readable=lambda rollout: rollout == "r1")
    assert [item["target"] for item in view["held"]] == ["a"]
    assert [item["target"] for item in view["waiting"]] == ["c", "e"]
    assert view["waiting"][1]["sentence"] == f"waits for service web: 2 of 2 in use by a (rollout r1), {HIDDEN}"
    assert "r2" not in str(view)


def test_text_tells_since_when_and_what_an_owner_that_fell_silent_means() -> None:
    text = leases_text(lease_view(HELD, WAITING, SINCE, NOW))
    assert "a  rollout r1  since 2026-11-24 22:18Z (12 min)  domain web az=a (1 of 1), service web (2 of 2)" in text
    assert SILENT in text
    assert text.index("c  rollout r1") < text.index("d  rollout r2")
    assert leases_text(lease_view([], [], {}, NOW)) == "nothing is held: no target is being changed\n\nnobody waits"


def test_name_that_would_steer_a_terminal_is_made_harmless() -> None:
    assert "\x1b" not in leases_text(lease_view([lease("a\x1b[2J")], [], {}, NOW))
