"""A plan as people read it (S2, S3): at 2 targets, at 500, in the terminal, for the approval, and as JSON."""

from __future__ import annotations

from typing import Any

from patching.change import Patch, Refusal, Undo
from patching.plan.document import Exclusion, Plan
from patching.plan.freeze import Candidate, freeze_plan
from patching.report.plan_text import patch_text, plan_json, plan_markdown, render_plan, summary
from unit.plan.made import NOW, candidate, fleet, patch, policy, target

CANARY = {"failureDomain": "az", "waves": [{"canary": {"count": 1, "per": "az"}, "soak": "30m"}, {"size": "100%"}]}
CHECK = {"name": "errors", "prometheus": {"connection": "prom", "errors": "e", "requests": "r"}}


def freeze(candidates: list[Candidate], **more: Any) -> Plan:
    spec = {"rollout": CANARY, "verify": [CHECK], **more.pop("spec", {})}
    return freeze_plan(rollout="r", policy=policy("web-kernel", **spec), now=NOW, candidates=candidates,
                       exclusions=more.pop("exclusions", []), **more)  # fmt: skip


def test_signs_of_changes() -> None:
    assert patch_text(patch("tool", "1", "2")) == "~ tool 1 -> 2"
    assert patch_text(patch("tool", None, "2")) == "+ tool 2"
    assert patch_text(patch("tool", "1", None)) == "- tool 1"


def test_small_plan_as_it_is_printed() -> None:
    left = [
        Exclusion(target="db-02", code="offline", reason="no answer in 30 s"),
        Exclusion(target="web-9", code="up_to_date", reason="nothing that the policy wants is missing"),
    ]
    one = candidate(target("web-03", az="a"), reboot="a new kernel")
    stuck = Undo(possible=False, covered=30, total=121, reason="no source for libc6=2.36-9")
    two = candidate(
        target("web-01", az="a"),
        patches=(patch("dep:all", None, "1.0"), patch()),
        undo=stuck,
        warnings=(Refusal(code="held", message="curl: it is held on the host", remedy="run apt-mark unhold curl"),),
    )
    plan = freeze([one, two], exclusions=left)
    first = plan.waves[0].targets[0]
    text = render_plan(plan, NOW, width=160)
    assert text.splitlines()[0] == (
        f"Plan {plan.digest[:12]} for web-kernel (policy {plan.policy_digest[:12]}, 2026-11-24 14:02Z, 0s ago)"
    )
    assert "  ! a fleet of 2 has little power: only gross errors are told from chance\n" in text
    assert f"  wave 1 (canary): 1 target, then soaks 30m\n    ~ {first}  a  " in text
    assert "    ~ web-03  a  linux-image:amd64 6.1.90-1 -> 6.1.94-1  reboot\n        because DSA-1 is high; 1 " in text
    assert (
        "    ~ web-01  a  2 components\n        + dep:all 1.0\n        ~ linux-image:amd64 6.1.90-1 -> 6.1.94-1\n"
        "        ! NO UNDO: available for 30 of 121 components (no source for libc6=2.36-9)\n"
    ) in text
    assert "        ! curl: it is held on the host; run apt-mark unhold curl\n" in text
    assert "    check errors: 1 target against 1 unpatched over 30m; so few controls give little power; at best" in text
    assert "  left out\n    db-02  offline: no answer in 30 s\n    web-9  up_to_date: nothing that" in text
    assert text.endswith(
        "\nApproval: 1 person (undo is not available for 1 of 2 targets: somebody has to look)\n"
        "Plan: 2 to patch, 1 skipped, 1 up to date; 1 reboot; undo available for 1 of 2 (31 of 122 components)."
    )


def test_five_hundred_targets_are_read_on_one_screen_and_none_is_lost() -> None:
    chosen = [candidate(item) for item in fleet([200, 150, 147])]
    chosen += [candidate(item, reboot="a new kernel") for item in fleet([3], label="rack")]
    gone = [Exclusion(target=f"off-{number}", code="offline", reason="no answer") for number in range(60)]
    text = render_plan(freeze(chosen, exclusions=gone), NOW)
    assert len(text.splitlines()) < 45
    assert "Plan: 500 to patch, 60 skipped, 0 up to date" in text
    assert " targets (az-0 " in text
    assert "off-0, off-1, off-10, off-11, off-12, off-13, off-14, off-15 and 52 more  offline: no answer" in text


def test_lines_are_folded_at_the_terminals_width() -> None:
    text = render_plan(freeze([candidate(item) for item in fleet([3, 3])]), NOW, width=72)
    assert max(map(len, text.splitlines())) <= 72


def test_what_a_host_says_cannot_drive_the_terminal_or_leave_its_block() -> None:
    evil = Exclusion(target="web-9", code="offline", reason="\x1b[2J```\n# approved")
    plan = freeze([candidate(target("web-1"))], exclusions=[evil])
    assert "\x1b" not in render_plan(plan, NOW)
    assert "\\x1b[2J" in render_plan(plan, NOW)
    assert "\n# approved" not in plan_markdown(plan)
    assert plan_markdown(plan).count("```") % 2 == 0


def test_nothing_to_do_is_said_in_words() -> None:
    plan = freeze([])
    assert summary(plan) == "Plan: 0 to patch, 0 skipped, 0 up to date; nothing would be changed."
    assert "Approval: none (there is nothing to do)" in render_plan(plan, NOW)


def test_emergency_and_blocked_domains_stand_at_the_top() -> None:
    everybody = fleet([2, 2])
    plan = freeze([candidate(item) for item in everybody[:3]], selected=everybody, down=[everybody[3].name],
                  emergency=True, spec={"emergency": {"ignore": ["window"]}})  # fmt: skip
    for text in (render_plan(plan, NOW), plan_markdown(plan)):
        assert text.index("EMERGENCY: passes window") < text.index("wave 1")
        assert text.index("az-1 cannot move: web-1-1 is down, limit 1") < text.index("wave 1")


def test_markdown_for_the_approval_has_the_digest_that_is_approved() -> None:
    plan = freeze([candidate(item) for item in fleet([1, 2])])
    text = plan_markdown(plan)
    assert text.startswith(f"**{summary(plan)}**")
    assert plan.digest in text
    for item in plan.targets:
        assert item.target.name in text


def test_json_is_versioned_and_holds_the_whole_plan() -> None:
    plan = freeze([candidate(target("web-1"))])
    made = plan_json(plan)
    assert (made["schema_version"], made["digest"], made["changes"]) == (1, plan.digest, 1)
    assert Plan.model_validate(made["plan"]) == plan


def test_changes_that_close_an_advisory_are_shown_before_those_that_come_along() -> None:
    along = [Patch(component=f"lib{number}", before="1", after="2") for number in range(5)]
    plan = freeze([candidate(target("web-1"), patches=(*along, patch("openssl", "1", "2")))])
    shown = [line.strip() for line in render_plan(plan, NOW).splitlines()]
    assert shown[shown.index("~ openssl 1 -> 2") :][:4] == [
        "~ openssl 1 -> 2",
        "~ lib0 1 -> 2",
        "~ lib1 1 -> 2",
        "and 3 more",
    ]
