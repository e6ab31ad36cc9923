"""The note of a DAG run: one sentence of what it waits for or how it ended, where a person looks first."""

from __future__ import annotations

import logging
from functools import lru_cache
from urllib.parse import quote

log = logging.getLogger(__name__)

CONNECTION = "patching_api"
LONGEST = 1000


def write_run_note(dag_id: str, run_id: str, sentence: str) -> None:
    """Write the note through Airflow's REST API with the connection ``patching_api``.

    The note only shows: without the connection, or when the API does not answer, the log says so and work goes on.
    """
    import httpx

    base = _base_url()
    if base is None:
        return
    url = f"{base}/api/v2/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"
    try:
        headers = {"Authorization": f"Bearer {_token(base)}"}
        answer = httpx.patch(
            url, params={"update_mask": "note"}, json={"note": sentence[:LONGEST]}, headers=headers, timeout=5.0
        )
        answer.raise_for_status()
    except httpx.HTTPError as error:
        _token.cache_clear()
        log.warning("the run's note could not be written (%s); it would say: %s", error, sentence)


@lru_cache(maxsize=1)
def _base_url() -> str | None:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        found = BaseHook.get_connection(CONNECTION)
    except AirflowNotFoundException:
        log.info("run notes are not written: connection %s does not exist", CONNECTION)
        return None
    return f"{found.schema or 'http'}://{found.host}:{found.port or 8080}"


@lru_cache(maxsize=1)
def _token(base: str) -> str:
    import httpx
    from airflow.sdk import BaseHook

    found = BaseHook.get_connection(CONNECTION)
    body = {"username": found.login, "password": found.password}
    answer = httpx.post(f"{base}/auth/token", json=body, timeout=5.0)
    answer.raise_for_status()
    return str(answer.json()["access_token"])
