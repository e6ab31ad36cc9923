"""Which targets a policy means (S1, S3), and for every other one why not."""

from __future__ import annotations

from typing import Any

import pytest

from patching.errors import PlanError
from patching.plan.selection import select_targets, unavailable
from patching.target import Reach, Target
from unit.plan.made import policy, snapshot, target

FLEET = [
    target("web-1", env="prod", role="web", az="a"),
    target("web-2", env="prod", role="web", az="b"),
    target("api-1", env="prod", role="api"),
    target("dev-1", env="dev", role="web"),
]


def names(selector: dict[str, Any], fleet: list[Target] = FLEET, **more: Any) -> list[str]:
    rules = policy(targets={"inventory": "lab", "selector": selector, **more.pop("targets", {})})
    return [item.name for item in select_targets(rules, fleet, **more).targets]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({}, ["web-1", "web-2", "api-1", "dev-1"]),
        ({"matchLabels": {"env": "prod", "role": "web"}}, ["web-1", "web-2"]),
        ({"matchExpressions": [{"key": "role", "operator": "In", "values": ["api", "db"]}]}, ["api-1"]),
        ({"matchExpressions": [{"key": "env", "operator": "NotIn", "values": ["dev"]}]}, ["web-1", "web-2", "api-1"]),
        ({"matchExpressions": [{"key": "az", "operator": "NotIn", "values": ["a"]}]}, ["web-2", "api-1", "dev-1"]),
        ({"matchExpressions": [{"key": "az", "operator": "Exists"}]}, ["web-1", "web-2"]),
        ({"matchExpressions": [{"key": "az", "operator": "DoesNotExist"}]}, ["api-1", "dev-1"]),
        ({"matchExpressions": [{"key": "never", "operator": "DoesNotExist"}]}, ["web-1", "web-2", "api-1", "dev-1"]),
        ({"matchLabels": {"env": "prod"}, "matchExpressions": [{"key": "az", "operator": "Exists"}]},
         ["web-1", "web-2"]),
    ],
)  # fmt: skip
def test_kubernetes_selectors(selector: dict[str, Any], expected: list[str]) -> None:
    assert names(selector) == expected


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"matchLabels": {"envv": "prod"}}, {}, r'unknown label "envv": no target of the inventory has it.*mean "env"\?'),
    ({"matchExpressions": [{"key": "rolle", "operator": "In", "values": ["web"]}]}, {}, 'unknown label "rolle"'),
    ({"matchLabels": {"env": "prd"}}, {}, r'matches none of 4 targets.*no target has env "prd"; did you mean "prod"\?'),
    ({"matchLabels": {"env": "dev", "role": "api"}}, {}, "matches none of 4 targets: nothing was planned"),
    ({}, {"targets": {"maxTargets": 3}}, "matches 4 targets, more than maxTargets 3: nothing was planned; raise"),
    ({}, {"limit_to": ["web-9"]}, r'limited to "web-9", which the policy does not select.*did you mean "web-'),
    ({"matchLabels": {"env": "prod"}}, {"limit_to": ["dev-1"]}, 'limited to "dev-1", which the policy does not select'),
    ({}, {"fleet": []}, 'inventory "lab" has no targets at all: nothing was planned'),
    ({"matchLabels": {"env": "prod"}}, {"fleet": []}, "no targets at all"),
    ({"matchLabels": {"env": "prod"}}, {"fleet": [target("bare")]}, "the targets have no label at all"),
]


@pytest.mark.parametrize(("selector", "more", "message"), REFUSED, ids=[item[2][:38] for item in REFUSED])
def test_refusals_say_what_to_write(selector: dict[str, Any], more: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        names(selector, **more)


def test_limited_run_keeps_the_named_and_excludes_the_others_with_the_reason() -> None:
    rules = policy(targets={"inventory": "lab", "selector": {"matchLabels": {"role": "web"}}})
    found = select_targets(rules, FLEET, limit_to=["web-2"])
    assert [item.name for item in found.targets] == ["web-2"]
    assert [(item.target, item.code) for item in found.exclusions] == [("web-1", "limited"), ("dev-1", "limited")]
    assert found.not_selected == 1


def test_every_target_that_may_not_be_touched_has_a_code_and_a_reason() -> None:
    fleet = [target(name) for name in ("on", "off", "login", "key", "sick", "busy", "unseen")]
    seen = {name: snapshot(name) for name in ("on", "sick", "busy")}
    seen["off"] = snapshot("off", reach=Reach.OFFLINE, reach_detail="no answer in 30 s")
    seen["login"] = snapshot("login", reach=Reach.LOGIN_REFUSED)
    seen["key"] = snapshot("key", reach=Reach.HOST_KEY_CHANGED)
    found = unavailable(fleet, seen, quarantined={"sick": "undo failed", "off": "undo failed"}, busy={"busy": "db-1"})
    assert {name: item.code for name, item in found.items()} == {
        "off": "offline", "login": "login_refused", "key": "host_key_changed",
        "sick": "quarantined", "busy": "busy", "unseen": "not_seen",
    }  # fmt: skip
    assert found["off"].reason == "no answer in 30 s"
    assert found["sick"].reason == "it is in quarantine: undo failed"
    assert "rollout db-1 is changing it" in found["busy"].reason
    assert all(item.reason for item in found.values())
