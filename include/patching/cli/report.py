"""``patching report``: what a rollout changed, who approved it, what was measured, and what a person must do next."""

from __future__ import annotations

import json
from typing import Annotated
from urllib.parse import quote

import typer

from patching.cli.airflow_api import AirflowApi
from patching.cli.following import AsJson, Url
from patching.cli.status import NO_ROLLOUT, reading

RolloutName = Annotated[str, typer.Argument(help="Id of a rollout; patching status lists them.", metavar="ROLLOUT")]


def report(rollout: RolloutName, as_json: AsJson = False, url: Url = "") -> int:
    """Print the report of a rollout as Markdown, or as JSON; an open one is reported as it stands now.

    Airflow's address and user come from PATCHING_URL and PATCHING_USER, PATCHING_PASSWORD (or PATCHING_TOKEN).
    Exit code 0: it is printed. 1: there is none, or you may not read it.
    """
    with AirflowApi.from_environment(url) as api, reading(f"{NO_ROLLOUT} {rollout}"):
        answer = api.get(f"/patching/api/rollouts/{quote(rollout, safe='')}/report")
    if as_json:
        print(json.dumps(answer["report"], indent=2, ensure_ascii=False))
    else:
        print(answer["markdown"])
    return 0
