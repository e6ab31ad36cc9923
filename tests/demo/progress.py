"""Live progress of a rollout in the terminal: what it waits for, its waves, every target's state, and each verdict."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console

from patching.cli.airflow_api import AirflowApi, AirflowApiError

SYMBOLS = {
    "applied": "[green]✓[/]",
    "undone": "[magenta]↶[/]",
    "failed": "[red]X[/]",
    "unknown": "[red]?[/]",
    "running": "[cyan]»[/]",
    "undoing": "[magenta]«[/]",
    "pending": "[dim]·[/]",
    "waiting": "[yellow]…[/]",
}
ANSWER_AFTER = 4.0
"""Seconds that a question has to stand before it is answered: Airflow loses answers that come within the first."""


class Watch:
    """One run that is watched until it ends; approvals are given on the way by named people."""

    def __init__(self, console: Console, admin: AirflowApi, people: dict[str, AirflowApi]) -> None:
        self.console = console
        self.admin = admin
        self.people = people
        self.said: dict[str, Any] = {}
        self.asked: dict[str, float] = {}
        self.began = time.monotonic()

    def follow(self, dag_id: str, run_id: str, within: float = 600.0) -> dict[str, Any]:
        """Follow a run to its end; gives the last view of its rollout. Raises TimeoutError."""
        self.began = time.monotonic()
        while time.monotonic() - self.began < within:
            run = self.admin.run(dag_id, run_id)
            view = self._view(dag_id, run_id)
            self._show(run, view)
            if run["state"] in ("success", "failed"):
                return {**view, "run_state": run["state"], "note": run.get("note"), "run_id": run_id, "dag_id": dag_id}
            self._answer(dag_id, run_id)
            time.sleep(1.0)
        raise TimeoutError(f"run {run_id} of {dag_id} did not end within {within:.0f} s")

    def _view(self, dag_id: str, run_id: str) -> dict[str, Any]:
        try:
            return dict(self.admin.get(f"/patching/api/run/{dag_id}/{run_id}"))
        except AirflowApiError as error:
            if not error.retryable:
                raise
            return {}

    def _say(self, key: str, text: str) -> None:
        """Print a line once for every change of it."""
        if text and self.said.get(key) != text:
            self.said[key] = text
            elapsed = int(time.monotonic() - self.began)
            self.console.print(f"[dim]{elapsed // 60:2d}:{elapsed % 60:02d}[/]  {text}", highlight=False)

    def _show(self, run: dict[str, Any], view: dict[str, Any]) -> None:
        self._say("note", str(run.get("note") or ""))
        targets = view.get("targets") or []
        for wave in view.get("waves") or []:
            mine = [item for item in targets if item.get("wave") == wave["index"]]
            row = " ".join(f"{SYMBOLS.get(item['shown_as'], '[dim]·[/]')}{item['name']}" for item in mine)
            kind = "canary" if wave.get("canary") else "wave"
            if any(item["shown_as"] != "pending" for item in mine):
                self._say(f"wave {wave['index']}", f"{kind} {wave['index']} {wave['state']:<9} {row}")
            if wave.get("verdict"):
                colour = {"promote": "green", "undo": "red"}.get(wave["verdict"], "yellow")
                verdict = f"verdict of wave {wave['index']}: [{colour}]{wave['verdict']}[/]: {wave['reason']}"
                self._say(f"verdict {wave['index']}", verdict)

    def _answer(self, dag_id: str, run_id: str) -> None:
        """Let each person answer one question, once it has stood for a moment."""
        names = list(self.people)
        for number, question in enumerate(self.admin.questions(dag_id, run_id)):
            task = question["task_instance"]["task_id"]
            since = self.asked.setdefault(f"{run_id} {task}", time.monotonic())
            if time.monotonic() - since < ANSWER_AFTER:
                continue
            name = names[(int(task.rpartition("_")[2]) - 1) % len(names)]
            self.people[name].answer(dag_id, run_id, task, "Approve", f"looked at the plan ({number + 1})")
            self._say(f"answer {task} {run_id}", f"[bold]{name}[/] approves ({task})")


def console() -> Console:
    """Make the console for progress: standard error, plain where it is no terminal."""
    return Console(file=sys.stderr, soft_wrap=True)
