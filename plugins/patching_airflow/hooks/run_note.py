"""The note of a DAG run: one sentence of what it waits for or how it ended, where a person looks first."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)

LONGEST = 1000


def write_run_note(dag_id: str, run_id: str, sentence: str) -> None:
    """Write the note through Airflow's REST API with the connection ``patching_api``.

    The note only shows: without the connection, or when the API does not answer, the log says so and work goes on.
    """
    import httpx

    from patching_airflow.hooks.airflow_rest import ask, run_path

    try:
        ask("PATCH", run_path(dag_id, run_id), params={"update_mask": "note"}, json={"note": sentence[:LONGEST]})
    except httpx.HTTPError as error:
        log.warning("the run's note could not be written (%s); it would say: %s", error, sentence)
