"""The verdict of a wave from checks and probes (S5, F3, F9)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patching.canary.judge import judge_wave
from patching.canary.verdicts import CheckVerdict, ProbeResult
from patching.policy import Check, HttpProbe, PrometheusCheck
from patching.rollout.answers import VerdictName

RULES = PrometheusCheck(connection="prom", errors="e{$series}", requests="r{$series}")
ERRORS = Check(name="errors", prometheus=RULES)
LENIENT = Check(name="latency", prometheus=RULES, on_inconclusive="promote")
PAGE = Check(name="page", http=HttpProbe(url="http://{address}/"))
TARGETS = ("a", "b")


def said(check: str, verdict: VerdictName) -> CheckVerdict:
    return CheckVerdict(name=check, verdict=verdict, reason=f"{check}: {verdict.value} it is")


def probed(target: str, ok: bool | None, check: str = "page") -> ProbeResult:
    return ProbeResult(check=check, target=target, ok=ok, detail="GET / 200")


def test_everything_good_is_promoted_with_the_reasons() -> None:
    verdict = judge_wave(
        [said("errors", VerdictName.PROMOTE)], [probed("a", True), probed("b", True)], [ERRORS, PAGE], TARGETS
    )
    assert (verdict.verdict, verdict.reason) == (VerdictName.PROMOTE, "errors: promote it is")


def test_one_bad_check_undoes_whatever_else_is_said() -> None:
    verdicts = [said("errors", VerdictName.UNDO), said("latency", VerdictName.INCONCLUSIVE)]
    verdict = judge_wave(verdicts, [probed("a", None)], [ERRORS, LENIENT, PAGE], TARGETS)
    assert (verdict.verdict, verdict.reason) == (VerdictName.UNDO, "errors: undo it is")


def test_failed_probe_undoes_and_names_the_target() -> None:
    verdict = judge_wave([], [probed("a", True), probed("b", False)], [PAGE], TARGETS)
    assert (verdict.verdict, verdict.reason) == (VerdictName.UNDO, "page failed on b: GET / 200")


def test_inconclusive_check_holds() -> None:
    verdict = judge_wave([said("errors", VerdictName.INCONCLUSIVE)], [], [ERRORS], TARGETS)
    assert verdict.verdict is VerdictName.HOLD


def test_check_without_an_answer_holds() -> None:
    """F9: what the policy asks must have been answered."""
    verdict = judge_wave([], [], [ERRORS], TARGETS)
    assert (verdict.verdict, verdict.reason) == (VerdictName.HOLD, "errors gave no answer")


@pytest.mark.parametrize("results", [[probed("a", True)], [probed("a", True), probed("b", None)]])
def test_target_that_was_not_probed_holds(results: list[ProbeResult]) -> None:
    verdict = judge_wave([], results, [PAGE], TARGETS)
    assert verdict.verdict is VerdictName.HOLD
    assert "could not be answered for b" in verdict.reason


def test_probe_that_was_asked_of_nobody_holds() -> None:
    assert judge_wave([], [], [PAGE]).verdict is VerdictName.HOLD


def test_inconclusive_may_pass_only_where_its_own_check_allows_it() -> None:
    answers = [said("errors", VerdictName.PROMOTE), said("latency", VerdictName.INCONCLUSIVE)]
    verdict = judge_wave(answers, [], [ERRORS, LENIENT], TARGETS)
    assert verdict.verdict is VerdictName.PROMOTE
    assert verdict.reason.startswith("promoted although inconclusive, as the policy allows: latency")
    answers = [said("errors", VerdictName.INCONCLUSIVE), said("latency", VerdictName.PROMOTE)]
    assert judge_wave(answers, [], [ERRORS, LENIENT], TARGETS).verdict is VerdictName.HOLD


@pytest.mark.parametrize("how", ["promote", "ask", "hold"])
def test_no_data_holds_whatever_the_policy_says_of_inconclusive_answers(how: str) -> None:
    """F9: Prometheus does not answer, nobody answered at all, and a probe that could not be asked."""
    check = LENIENT.model_copy(update={"on_inconclusive": how})
    down = CheckVerdict.unavailable(check, "Prometheus did not answer")
    assert judge_wave([down], [], [check], TARGETS).verdict is VerdictName.HOLD
    assert judge_wave([], [], [check], TARGETS).verdict is VerdictName.HOLD
    page = PAGE.model_copy(update={"on_inconclusive": how})
    verdict = judge_wave([], [probed("a", True), probed("b", None)], [page], TARGETS)
    assert verdict.verdict is VerdictName.HOLD
    assert "could not be answered for b" in verdict.reason


def test_policy_without_checks_says_that_nothing_was_measured() -> None:
    verdict = judge_wave([], [], [], TARGETS)
    assert verdict.verdict is VerdictName.PROMOTE
    assert "without a measurement" in verdict.reason


def test_policy_with_probes_only_says_that_no_metric_was_compared() -> None:
    verdict = judge_wave([], [probed("a", True), probed("b", True)], [PAGE], TARGETS)
    assert verdict.verdict is VerdictName.PROMOTE
    assert "probes only" in verdict.reason


def test_wave_that_changed_nobody_holds() -> None:
    assert judge_wave([], [], [ERRORS], ()).verdict is VerdictName.HOLD


def test_answer_to_no_question_of_the_policy_still_counts() -> None:
    assert judge_wave([said("other", VerdictName.HOLD)], [], [], TARGETS).verdict is VerdictName.HOLD
    assert judge_wave([], [probed("a", None, "other")], [], TARGETS).verdict is VerdictName.HOLD


def test_alarm_of_a_check_that_is_not_critical_holds() -> None:
    mild = ERRORS.model_copy(update={"critical": False})
    verdict = judge_wave([said("errors", VerdictName.UNDO)], [], [mild], TARGETS)
    assert (verdict.verdict, verdict.reason) == (VerdictName.HOLD, "not critical, so it holds: errors: undo it is")


@pytest.mark.parametrize("answer", [VerdictName.UNDO, VerdictName.INCONCLUSIVE, VerdictName.PROMOTE])
def test_dry_run_is_recorded_and_decides_nothing(answer: VerdictName) -> None:
    dry = LENIENT.model_copy(update={"dry_run": True, "on_inconclusive": "hold"})
    answers = [said("errors", VerdictName.PROMOTE), said("latency", answer)]
    verdict = judge_wave(answers, [], [ERRORS, dry], TARGETS)
    assert verdict.verdict is VerdictName.PROMOTE
    assert verdict.reason == f"errors: promote it is; recorded only: latency: {answer.value} it is"
    assert verdict.checks == tuple(answers)


def test_dry_run_of_a_failed_probe_undoes_nothing() -> None:
    dry = PAGE.model_copy(update={"dry_run": True})
    verdict = judge_wave([said("errors", VerdictName.PROMOTE)], [probed("a", False)], [ERRORS, dry], TARGETS)
    assert verdict.verdict is VerdictName.PROMOTE
    assert verdict.reason.endswith("recorded only: page failed on a")


def test_check_that_asks_holds_and_says_so() -> None:
    asking = ERRORS.model_copy(update={"on_inconclusive": "ask"})
    verdict = judge_wave([said("errors", VerdictName.INCONCLUSIVE)], [], [asking], TARGETS)
    assert verdict.verdict is VerdictName.HOLD
    assert verdict.reason == "the policy asks a person to promote or undo: errors: inconclusive it is"


verdicts = st.sampled_from([VerdictName.PROMOTE, VerdictName.INCONCLUSIVE, VerdictName.HOLD, VerdictName.UNDO])
BADNESS = {VerdictName.PROMOTE: 0, VerdictName.HOLD: 1, VerdictName.UNDO: 2}


@settings(deadline=None, max_examples=100)
@given(st.lists(verdicts, max_size=4), st.lists(st.sampled_from([True, None, False]), max_size=4), verdicts)
def test_another_answer_never_makes_a_wave_better(
    names: list[VerdictName], oks: list[bool | None], more: VerdictName
) -> None:
    checks = [Check(name=f"c{index}", prometheus=RULES) for index in range(len(names) + 1)]
    answers = [said(f"c{index}", name) for index, name in enumerate(names)]
    results = [probed(f"t{index}", ok) for index, ok in enumerate(oks)]
    asked = [*checks[:-1], *([PAGE] if oks else [])]
    targets = tuple(f"t{index}" for index in range(max(1, len(oks))))
    fewer = judge_wave(answers, results, asked, targets)
    longer = judge_wave([*answers, said(checks[-1].name, more)], results, [*asked, checks[-1]], targets)
    assert BADNESS[longer.verdict] >= BADNESS[fewer.verdict]
