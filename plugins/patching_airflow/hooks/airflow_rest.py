"""Airflow's REST API as a task may use it: with the connection ``patching_api``, and without it not at all."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import httpx

log = logging.getLogger(__name__)

CONNECTION = "patching_api"
TIMEOUT = 10.0


def run_path(dag_id: str, run_id: str) -> str:
    """Give the path of one run."""
    return f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"


def ask(method: str, path: str, **more: Any) -> Any:
    """Send one request; None where the connection does not exist. Raises httpx.HTTPError."""
    base = _base_url()
    if base is None:
        return None
    try:
        headers = {"Authorization": f"Bearer {_token(base)}"}
        answer = httpx.request(method, f"{base}{path}", headers=headers, timeout=TIMEOUT, **more)
        answer.raise_for_status()
    except httpx.HTTPError:
        _token.cache_clear()
        raise
    return answer.json()


@lru_cache(maxsize=1)
def _base_url() -> str | None:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        found = BaseHook.get_connection(CONNECTION)
    except AirflowNotFoundException:
        log.info("connection %s does not exist: run notes are not written", CONNECTION)
        return None
    return f"{found.schema or 'http'}://{found.host}:{found.port or 8080}"


@lru_cache(maxsize=1)
def _token(base: str) -> str:
    from airflow.sdk import BaseHook

    found = BaseHook.get_connection(CONNECTION)
    body = {"username": found.login, "password": found.password}
    answer = httpx.post(f"{base}/auth/token", json=body, timeout=TIMEOUT)
    answer.raise_for_status()
    return str(answer.json()["access_token"])
