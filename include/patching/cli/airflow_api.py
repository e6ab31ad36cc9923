"""AirflowApi: Airflow's REST API, and ours beside it, as a client that logs in; so *who* acts is always known."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from patching.errors import PatchingError

DEFAULT_URL = "http://127.0.0.1:8080"
TIMEOUT = 30.0


class AirflowApiError(PatchingError):
    """Airflow refused a request or did not answer; the message says which and what to do."""

    def __init__(self, message: str, status: int | None = None, detail: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail
        self.retryable = status is None or status >= 500


class AirflowApi:
    """One logged-in user of one Airflow."""

    def __init__(self, url: str, *, user: str = "", password: str = "", token: str = "") -> None:
        self.url = url.rstrip("/")
        self._client = httpx.Client(base_url=self.url, timeout=TIMEOUT, trust_env=False)
        self._client.headers["Authorization"] = f"Bearer {token or self._login(user, password)}"

    @classmethod
    def from_environment(cls, url: str = "") -> AirflowApi:
        """Log in with PATCHING_TOKEN, or PATCHING_USER and PATCHING_PASSWORD, at ``url``, else at PATCHING_URL."""
        url = url or os.environ.get("PATCHING_URL", DEFAULT_URL)
        token, user = os.environ.get("PATCHING_TOKEN", ""), os.environ.get("PATCHING_USER", "")
        if not token and not user:
            raise AirflowApiError(
                f"nobody is logged in to {url}: set PATCHING_USER and PATCHING_PASSWORD, or PATCHING_TOKEN", 401
            )
        return cls(url, user=user, password=os.environ.get("PATCHING_PASSWORD", ""), token=token)

    def __enter__(self) -> AirflowApi:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()

    def _login(self, user: str, password: str) -> str:
        answer = self._ask("POST", "/auth/token", json={"username": user, "password": password})
        return str(answer["access_token"])

    def get(self, path: str, **params: Any) -> Any:
        """Read one path; raises AirflowApiError."""
        return self._ask("GET", path, params=params)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Ask for a change with a JSON body; raises AirflowApiError, whose ``detail`` says why in words."""
        return self._ask("POST", path, json=body)

    def trigger(self, dag_id: str, conf: dict[str, Any], run_id: str | None = None) -> str:
        """Trigger a run; gives its id. With a ``run_id`` of the caller a repetition cannot make a second run."""
        body: dict[str, Any] = {"logical_date": None, "conf": conf}
        if run_id is not None:
            body["dag_run_id"] = run_id
        return str(self._ask("POST", f"/api/v2/dags/{quote(dag_id)}/dagRuns", json=body)["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Read one run: state, note and moments."""
        return dict(self.get(self._run(dag_id, run_id)))

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Read the tasks of a run."""
        return list(self.get(f"{self._run(dag_id, run_id)}/taskInstances", limit=500)["task_instances"])

    def set_task_state(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Mark a task, as a person does in the UI."""
        path = f"{self._run(dag_id, run_id)}/taskInstances/{quote(task_id)}"
        self._ask("PATCH", path, json={"new_state": state}, params={"update_mask": "new_state"})

    def clear(self, dag_id: str, run_id: str, task_ids: list[str]) -> None:
        """Clear tasks of a run, as a person does in the UI."""
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": task_ids, "only_failed": False}
        self._ask("POST", f"/api/v2/dags/{quote(dag_id)}/clearTaskInstances", json=body)

    def questions(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Read what people are asked in a run and have not answered."""
        found = self.get(f"{self._run(dag_id, run_id)}/hitlDetails", limit=100)["hitl_details"]
        return [item for item in found if not item.get("response_received")]

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str, comment: str = "") -> dict[str, Any]:
        """Answer one question as the logged-in user."""
        path = f"{self._run(dag_id, run_id)}/taskInstances/{quote(task_id)}/-1/hitlDetails"
        body = {"chosen_options": [option], "params_input": {"comment": comment}}
        return dict(self._ask("PATCH", path, json=body))

    def _run(self, dag_id: str, run_id: str) -> str:
        return f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}"

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        try:
            answer = self._client.request(method, path, **more)
        except httpx.HTTPError as error:
            raise AirflowApiError(
                f"{self.url} does not answer ({error}): is Airflow running there? set PATCHING_URL to another address"
            ) from error
        if answer.is_success:
            return answer.json() if answer.content else None
        detail = _detail(answer)
        raise AirflowApiError(f"{method} {path}: {answer.status_code} {detail}", answer.status_code, detail)


def _detail(answer: httpx.Response) -> str:
    try:
        found = answer.json().get("detail", answer.text)
    except (ValueError, AttributeError):
        found = answer.text
    return str(found)[:500]
