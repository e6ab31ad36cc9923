"""``patching leases``: who holds what since when, and who waits for whom; it only reads."""

from __future__ import annotations

import json

from patching.cli.airflow_api import AirflowApi
from patching.cli.following import AsJson, Url
from patching.report.lease_view import leases_text


def leases(as_json: AsJson = False, url: Url = "") -> int:
    """Show which targets are leased, with the places that they take, and who waits for whom; changes nothing.

    Airflow's address and user come from PATCHING_URL and PATCHING_USER, PATCHING_PASSWORD (or PATCHING_TOKEN). Only
    rollouts that you may read are named. Exit code 0: it is shown.
    """
    with AirflowApi.from_environment(url) as api:
        found = dict(api.get("/patching/api/leases"))
    print(json.dumps(found, indent=2, ensure_ascii=False) if as_json else leases_text(found))
    return 0
