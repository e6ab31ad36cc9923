"""``patching incident list|show|release``: what locks a policy, what was gathered, and the release of its lock."""

from __future__ import annotations

import json
from typing import Annotated
from urllib.parse import quote

import typer

from patching.cli.airflow_api import AirflowApi
from patching.cli.control import Why, post, show_done
from patching.cli.following import AsJson, Url
from patching.cli.status import reading
from patching.report.incident_view import incident_text, incidents_text

app = typer.Typer(
    help="Incidents: a failed undo or a late regression locks its policy until a person releases it.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
Incident = Annotated[
    str, typer.Argument(help="Id of an incident, as `patching incident list` gives it.", metavar="INCIDENT")
]


@app.command("list")
def listed(as_json: AsJson = False, url: Url = "") -> None:
    """List the incidents that you may read, the newest first, and which policies they lock; changes nothing.

    Exit code 0: they are listed, also where there is none.
    """
    with AirflowApi.from_environment(url) as api:
        found = dict(api.get("/patching/api/incidents"))
    print(json.dumps(found, indent=2, ensure_ascii=False) if as_json else incidents_text(found))


@app.command("show")
def shown(incident: Incident, as_json: AsJson = False, url: Url = "") -> None:
    """Show one incident: the last steps with what they printed, and what each target said of itself; changes nothing.

    Exit code 0: it is shown. 1: there is no such incident, or you may not read its logs.
    """
    with AirflowApi.from_environment(url) as api, reading(f"the ledger has no incident {incident}"):
        found = dict(api.get(f"/patching/api/incidents/{quote(incident, safe='')}"))
    print(json.dumps(found, indent=2, ensure_ascii=False) if as_json else incident_text(found))


@app.command("release")
def release(incident: Incident, reason: Why, as_json: AsJson = False, url: Url = "") -> None:
    """Release an incident in your name: its policy may work again. What is held stays held.

    Exit code 0: it is released. 1: refused, and the message says why.
    """
    with AirflowApi.from_environment(url) as api:
        done = post(api, f"incidents/{quote(incident, safe='')}/release", {"reason": reason})
    show_done(done, as_json)
