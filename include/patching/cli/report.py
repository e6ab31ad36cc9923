"""``patching report``: what a rollout changed, who approved it, what was measured, and what a person must do next."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from patching.cli.airflow_api import AirflowApi
from patching.cli.following import AsJson, Url
from patching.cli.status import NO_ROLLOUT, reading
from patching.value import JsonValue

Pictures = Annotated[
    Path | None,
    typer.Option(help="Also write a picture (SVG) of each metric and wave into this folder.", metavar="FOLDER"),
]
RolloutName = Annotated[str, typer.Argument(help="Id of a rollout; patching status lists them.", metavar="ROLLOUT")]


def report(rollout: RolloutName, as_json: AsJson = False, pictures: Pictures = None, url: Url = "") -> int:
    """Print the report of a rollout as Markdown, or as JSON; an open one is reported as it stands now.

    A picture shows canary and control over time and when each target was changed; it can be read in print.

    Airflow's address and user come from PATCHING_URL and PATCHING_USER, PATCHING_PASSWORD (or PATCHING_TOKEN).
    Exit code 0: it is printed. 1: there is none, or you may not read it.
    """
    with AirflowApi.from_environment(url) as api, reading(f"{NO_ROLLOUT} {rollout}"):
        place = f"/patching/api/rollouts/{quote(rollout, safe='')}"
        answer = api.get(f"{place}/report")
        plots = api.get(place)["plots"] if pictures is not None else []
    if as_json:
        print(json.dumps(answer["report"], indent=2, ensure_ascii=False))
    else:
        print(answer["markdown"])
    if pictures is not None:
        _draw(plots, pictures)
    return 0


def _draw(plots: Sequence[dict[str, JsonValue]], folder: Path) -> None:
    from patching.canary.plot import Plot
    from patching.canary.plot_svg import svg

    folder.mkdir(parents=True, exist_ok=True)
    for one in plots:
        # The name of a check may be that of a service too, and a label of a host says what that is.
        name = re.sub(r"[^\w.-]+", "-", str(one["check"])).strip(".-")
        file = folder / f"wave-{int(one['wave'])}-{name}.svg"
        plot = Plot.model_validate({key: one[key] for key in Plot.model_fields})
        file.write_text(svg(plot), encoding="utf-8")
        print(f"wrote {file}", file=sys.stderr)
    if not plots:
        print("nothing was measured, so there is no picture", file=sys.stderr)
