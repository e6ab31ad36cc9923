"""What people answered in a run, as Airflow recorded it: an answer counts even where its task was lost afterwards.

Airflow can fail a human-in-the-loop task whose answer came before the executor had reported it as parked; the answer
is recorded all the same, and people must not be asked again for that.
"""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger(__name__)


def recorded_answers(dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
    """Give the recorded answers by task id; none where connection ``patching_api`` is missing or the API is away."""
    import httpx

    from patching_airflow.hooks.airflow_rest import ask, run_path

    try:
        found = ask("GET", f"{run_path(dag_id, run_id)}/hitlDetails", params={"limit": 100})
    except httpx.HTTPError as error:
        log.warning("recorded answers could not be read (%s): only those that reached their task count", error)
        return {}
    details = (found or {}).get("hitl_details", [])
    return {item["task_instance"]["task_id"]: item for item in details if item.get("response_received")}
