"""``patching quarantine``: which targets no rollout touches, why, and until when; it only reads."""

from __future__ import annotations

import json

from patching.cli.airflow_api import AirflowApi
from patching.cli.following import AsJson, Url
from patching.report.quarantine_view import quarantine_text


def quarantine(as_json: AsJson = False, url: Url = "") -> int:
    """Show every target in quarantine with its cause, its date and its rollout; changes nothing.

    Airflow's address and user come from PATCHING_URL and PATCHING_USER, PATCHING_PASSWORD (or PATCHING_TOKEN). Only
    what is of rollouts that you may read is shown. Exit code 0: it is shown.
    """
    with AirflowApi.from_environment(url) as api:
        found = dict(api.get("/patching/api/quarantine"))
    print(json.dumps(found, indent=2, ensure_ascii=False) if as_json else quarantine_text(found))
    return 0
