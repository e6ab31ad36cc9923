"""The tasks of a wave: gate, apply, judge, undo; each asks the ledger, whatever Airflow shows of the one before."""

from __future__ import annotations

import asyncio
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from patching_airflow.operators.base import RolloutOperator, wave_of, waves_of


class WaveOperator(RolloutOperator):
    """A task of one wave."""

    @property
    def wave(self) -> int:
        """Number of its wave, from 1."""
        found = wave_of(self.task_id)
        if found is None:
            raise ValueError(f"{self.task_id} is in no group wave_<number>: a wave's task must be")
        return found


class GateOperator(WaveOperator):
    """Waits until the wave may start, or refuses; a waiting gate holds no worker slot."""

    def work(self, context: Any) -> str:
        """Ask the gate."""
        from patching.rollout.answers import GateState
        from patching.rollout.error_budget import record_budgets
        from patching.rollout.gates import gate
        from patching.rollout.record import frozen_plan

        site = self.site(context)
        rollout = self.rollout(site, context)
        asyncio.run(record_budgets(site, rollout, self.wave))
        answer = gate(site, rollout, self.wave, context["ti"].run_id)
        if answer.state is GateState.WAITS and answer.again_at is not None:
            self.ask_again(context, site, rollout, answer.sentence, answer.again_at)
        plan = frozen_plan(site, rollout)
        if plan is not None and plan.wave(self.wave) is None:
            self.log.info(answer.sentence)
            self.pass_over([name for name in waves_of(self.dag) if (wave_of(name) or 0) >= self.wave])
        refused = answer.state is not GateState.OPEN
        return self.show(context, answer.sentence, skipped=refused, bad=refused and answer.shown_as == "failed")


class ApplyOperator(WaveOperator):
    """Applies one shard of the wave; clearing or retrying it resumes, and never runs a step twice."""

    def __init__(self, *, shard: int = 0, shards: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shard = shard
        self.shards = shards
        self._stopped: str | None = None

    def work(self, context: Any) -> str:
        """Do it; a shard in which a target failed is shown failed."""
        from patching.rollout.wave import apply_wave, refusal

        site = self.site(context)
        rollout = self.rollout(site, context)
        if refusal(site, rollout, self.wave) is None:
            self.note(context, f"wave {self.wave} is being applied")
        summary = asyncio.run(
            apply_wave(site, rollout, self.wave, self.shard, self.shards, context["ti"].run_id, lambda: self._stopped)
        )
        context["shard_label"] = f"shard {self.shard + 1}: {summary.sentence}"
        return self.show(context, summary.sentence, skipped=summary.skipped, bad=summary.bad)

    def on_kill(self) -> None:
        """Launch nothing more; what runs on a host goes on there and is settled by its step id."""
        self._stopped = "stopped in Airflow (marked, cleared or timed out)"


class JudgeOperator(WaveOperator):
    """Lets the wave soak without a worker slot, then writes its one verdict."""

    def work(self, context: Any) -> str:
        """Ask the judge, and again when the soak is over."""
        from patching.rollout.answers import VerdictName
        from patching.rollout.judging import judge

        site = self.site(context)
        rollout = self.rollout(site, context)
        answer = asyncio.run(judge(site, rollout, self.wave, context["ti"].run_id))
        if answer.again_at is not None:
            self.ask_again(context, site, rollout, answer.sentence, answer.again_at)
        name = answer.verdict.value if answer.verdict else "no verdict"
        sentence = f"{name}: {answer.sentence}"
        bad = not answer.skipped and answer.verdict is not VerdictName.PROMOTE
        if bad:
            self.note(context, f"wave {self.wave}: {sentence}")
        return self.show(context, sentence, skipped=answer.skipped, bad=bad)


class UndoOperator(RolloutOperator):
    """Undoes what the ledger says must be undone: after a bad verdict all that was changed."""

    def work(self, context: Any) -> str:
        """Do it; a target that could not be undone makes the task red and is quarantined."""
        from patching.rollout.undoing import undo_wave

        site, wave = self.site(context), wave_of(self.task_id)
        rollout = self.rollout(site, context)
        summary = asyncio.run(undo_wave(site, rollout, wave, context["ti"].run_id))
        if wave is not None and not summary.bad and self._stopped_here(site, rollout, wave):
            context["ti"].xcom_push(key="sentence", value=summary.sentence)
            self.log.info(summary.sentence)
            self.pass_over([*(name for name in waves_of(self.dag) if (wave_of(name) or 0) > wave), "verify"])
        return self.show(context, summary.sentence, skipped=summary.skipped, bad=summary.bad)

    def _stopped_here(self, site: Any, rollout: str, wave: int) -> bool:
        """Say whether this wave stopped the rollout: the ledger would refuse every later one."""
        from patching.rollout.gates import promoted

        started = site.ledger.find(rollout, f"wave-started:{wave}") is not None
        return started and not promoted(site, rollout, wave)


class VerifyOperator(RolloutOperator):
    """Looks once more at every patched target after the last wave."""

    def work(self, context: Any) -> str:
        """Do it; only when all run what was planned is the rollout completed."""
        from patching.rollout.closing import verify

        site = self.site(context)
        summary = asyncio.run(verify(site, self.rollout(site, context), context["ti"].run_id))
        return self.show(context, summary.sentence, skipped=summary.skipped, bad=summary.bad)


class ReportOperator(RolloutOperator):
    """Writes the report and gives the run its colour: it is the only leaf."""

    def work(self, context: Any) -> str:
        """Do it; the run is red when the rollout is held, failed, undone, refused, expired or interrupted."""
        from patching.rollout.closing import close_run
        from patching_airflow.notifying import tell_of

        site = self.site(context)
        closing = close_run(site, context["ti"].dag_id, context["ti"].run_id)
        for line in closing.markdown.splitlines():
            self.log.info(line)
        for line in tell_of(site, closing.rollout) if closing.rollout else ():
            self.log.info(line)
        self.note(context, closing.sentence)
        if not closing.good:
            raise AirflowFailException(closing.sentence)
        return closing.sentence
