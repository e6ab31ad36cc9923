"""The tasks before a wave: discover the targets, make the plan, ask people, download what was planned."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from patching_airflow.operators.base import RolloutOperator, waves_of
from patching_airflow.operators.patience import PatientOperator

APPROVE, REJECT = "Approve", "Reject"
LEAST_WAIT = timedelta(minutes=1)


def persons_of(dag: Any) -> list[str]:
    """Name the tasks that ask people."""
    return sorted(name for name in dag.task_ids if name.startswith("approve.person_"))


class DiscoverOperator(RolloutOperator):
    """Reads the policy once, opens or adopts its rollout, and takes a snapshot of every target.

    While another run of the policy is at work it waits for that one, in no worker slot, and then decides anew.

    ``policy_path`` is the policy's file; None (the emergency DAG) means the file of the policy that the run names.
    """

    def __init__(self, *, policy_path: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.policy_path = policy_path

    def work(self, context: Any) -> str:
        """Do it; a broken policy, an unknown inventory or label fails here with what to write instead."""
        from patching.errors import PatchingError
        from patching.rollout.discovery import discover

        site = self.site(context)
        try:
            policy = self._policy(site, context["params"])
            found = asyncio.run(discover(site, policy, self._request(policy, context)))
        except PatchingError as error:
            if error.retryable:
                raise
            self.note(context, str(error))
            raise AirflowFailException(str(error)) from error
        if found.again_at is not None:
            self.ask_again(context, site, found.rollout, found.sentence, found.again_at)
        self.note(context, found.sentence)
        self.log.info(found.sentence)
        if found.yields_to is not None:
            self.pass_over(["prioritise", "approve", *waves_of(self.dag), "verify", "rollback"])
        return found.sentence

    def _policy(self, site: Any, params: Any) -> Any:
        from patching.errors import PlanError
        from patching.policy_files import load_policy

        if self.policy_path is not None:
            return load_policy(Path(self.policy_path))
        name = str(params.get("policy") or "")
        known = {path.stem: path for path in sorted(site.policies_dir.glob("*.y*ml")) if path.stem != "people"}
        if name not in known:
            raise PlanError(f'unknown policy "{name}": nothing was begun; there is: {", ".join(known) or "none"}')
        return load_policy(known[name])

    def _request(self, policy: Any, context: Any) -> Any:
        """Read what the run was asked for; it can only tighten what the policy allows."""
        from patching.rollout.answers import Request

        params, run = context["params"], context["dag_run"]
        modes = {policy.spec.mode, params.get("mode") or "apply"}
        scheduled = str(getattr(run.run_type, "value", run.run_type)) == "scheduled"
        return Request(
            dag_id=context["ti"].dag_id,
            run_id=context["ti"].run_id,
            mode="plan" if "plan" in modes else "apply",
            reason=params.get("reason") or "",
            limit_to=tuple(params.get("limit_to") or params.get("targets") or ()),
            plan_digest=params.get("plan_digest") or None,
            requested_by=getattr(run, "triggering_user_name", None),
            scheduled=scheduled,
            replan=bool(params.get("replan")),
            emergency=self.policy_path is None,
            advisories=tuple(params.get("advisory_ids") or ()),
        )


class BrokenPolicyOperator(RolloutOperator):
    """Stands where a broken policy's discovery would: it fails with the errors of the file."""

    def __init__(self, *, message: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.message = message

    def work(self, context: Any) -> str:
        """Fail with the message; rollouts that are under way go on with their frozen plan."""
        self.note(context, self.message)
        raise AirflowFailException(self.message)


class PlanOperator(RolloutOperator):
    """Makes the plan and freezes it; clearing it finds the same plan."""

    def work(self, context: Any) -> str:
        """Do it; tasks that the plan will not need are shown as skipped at once."""
        from patching.errors import PatchingError
        from patching.report.plan_text import render_plan, summary
        from patching.rollout.planning import make_plan
        from patching.rollout.record import request_of_run

        site = self.site(context)
        rollout = self.rollout(site, context)
        try:
            plan = asyncio.run(make_plan(site, rollout))
        except PatchingError as error:
            if error.retryable:
                raise
            self.note(context, str(error))
            raise AirflowFailException(str(error)) from error
        for line in render_plan(plan).splitlines():
            self.log.info(line)
        context["ti"].xcom_push(key="plan", value={"rollout": rollout, "digest": plan.digest, "summary": summary(plan)})
        request = request_of_run(site, rollout, context["ti"].run_id)
        if not plan.targets or (request is not None and request.mode == "plan"):
            self.pass_over(["approve", *waves_of(self.dag), "verify", "rollback"])
        return summary(plan)


class AskPersonOperator(HITLOperator, PatientOperator):
    """Asks one person for approval through Airflow's human-in-the-loop page.

    It is skipped when nobody needs to be asked. Who may answer comes from the frozen policy. An answer of somebody who
    answered already is not counted, and the question is asked again: ``required: 2`` means two different people. (Two
    answers in the same second may both get through; the decision counts people, not answers.)
    """

    @property
    def number(self) -> int:
        """Which person it asks, from 1; its id says so (``approve.person_2``)."""
        return int(self.task_id.rpartition("_")[2])

    def execute(self, context: Any) -> Any:
        """Put the question, as soon as the ledger says it."""
        return self.attempt(context)

    def work(self, context: Any) -> Any:
        """Put the question with the plan in it; the wait ends when the window opens."""
        from patching.rollout.approval import approval_request
        from patching.rollout.record import rollout_of_run
        from patching_airflow.site import task_site

        site = task_site(context)
        rollout = rollout_of_run(site, context["ti"].dag_id, context["ti"].run_id)
        asked = None if rollout is None else approval_request(site, rollout, context["ti"].run_id)
        if asked is None or self.number > asked.needed:
            raise AirflowSkipException("nobody needs to be asked" if asked is None else asked.reason)
        self.subject = f"{asked.subject} ({self.number} of {asked.needed})"
        self.body = asked.body
        self.assigned_users = [{"id": name, "name": name} for name in asked.approvers] or None
        if asked.until is not None:
            self.response_timeout = max(asked.until - datetime.now(UTC), LEAST_WAIT)
        self._say(context, asked)
        return HITLOperator.execute(self, context)

    def _say(self, context: Any, asked: Any) -> None:
        people = "person" if asked.needed == 1 else "different people"
        until = f", until {asked.until:%a %H:%M} UTC" if asked.until else ""
        sentence = (
            f"waits for the approval of plan {asked.plan_digest[:12]} by {asked.needed} {people} "
            f"({', '.join(asked.approvers) or 'anybody who may'}){until}"
        )
        self.note(context, sentence)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Give who answered what; a person who answered another of these tasks is not counted twice."""
        if event.get("error_type") == "timeout":
            raise AirflowSkipException("nobody answered in time")
        answer = super().execute_complete(context, event)
        person = (answer.get("responded_by_user") or {}).get("id")
        if person is not None and person in self._answered(context):
            self.log.warning("%s answered already: somebody else must answer", person)
            return self.attempt(context)
        return answer

    def _answered(self, context: Any) -> set[str]:
        """Name the people who answered the other questions, whichever was asked first."""
        said = [context["ti"].xcom_pull(task_ids=name) for name in persons_of(self.dag) if name != self.task_id]
        users = [(answer or {}).get("responded_by_user") for answer in said]
        return {str(user["id"]) for user in users if user}


class DecideApprovalOperator(RolloutOperator):
    """Counts the answers and writes the decision, bound to the plan's digest, into the ledger."""

    def work(self, context: Any) -> str:
        """Do it; only a decision in the ledger opens a gate later."""
        from patching.rollout.approval import decide

        site = self.site(context)
        decision = decide(site, self.rollout(site, context), context["ti"].run_id, self._answers(context))
        self.note(context, decision.reason)
        return self.show(context, decision.reason, bad=not decision.approved)

    def _answers(self, context: Any) -> list[Any]:
        from patching.rollout.answers import Answer
        from patching_airflow.hooks.human_answers import recorded_answers

        found = []
        recorded = recorded_answers(context["ti"].dag_id, context["ti"].run_id)
        for name in persons_of(self.dag):
            said = context["ti"].xcom_pull(task_ids=name) or recorded.get(name)
            user = (said or {}).get("responded_by_user")
            if not user:
                continue
            at = said["responded_at"]
            found.append(
                Answer(
                    person=user["id"],
                    approved=said["chosen_options"] == [APPROVE],
                    at=at if isinstance(at, datetime) else datetime.fromisoformat(str(at)),
                    comment=str((said.get("params_input") or {}).get("comment") or ""),
                )
            )
        return found


class PrepareOperator(RolloutOperator):
    """Downloads and checks the planned packages on every target, once the plan is approved."""

    def work(self, context: Any) -> str:
        """Do it; a target that fails here tries once more in its own change job."""
        from patching.rollout.approval import prepare

        site = self.site(context)
        sentence = asyncio.run(prepare(site, self.rollout(site, context), context["ti"].run_id))
        return self.show(context, sentence, skipped=sentence == "nothing to prepare")
