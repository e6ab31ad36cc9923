"""The page docs/reference/dags.md, made from the DAGs themselves: ``python -m patching_dags.reference``.

It needs ``dags`` on PYTHONPATH. A test compares the committed page with what would be written: it cannot go stale.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param

from patching.policy_files import load_policy
from patching_dags.emergency import build_emergency
from patching_dags.reconcile import build_reconcile
from patching_dags.rollout import build

ROOT = Path(__file__).parents[2]
PAGE = "docs/reference/dags.md"
EXAMPLE = "tests/demo/policies/shopfront-security.yaml"

INTRO = f"""<!-- Made by `PYTHONPATH=dags python -m patching_dags.reference` (make docs); do not edit. -->

# DAGs

Three kinds of DAG: one `patch__<policy>` for every file in the policies folder, `patch_emergency` and
`patch_reconcile`. Airflow's colours only show what the ledger decided
([why](../explanation/airflow-states-only-show.md)).

Settings, section `[patching]` of Airflow's configuration (or `AIRFLOW__PATCHING__<NAME>`):

| setting | default | meaning |
|---|---|---|
| `ledger_url` | none: nothing is patched without | database of the ledger, `sqlite:////…` or `postgresql+psycopg://…` |
| `policies_dir` | `policies` beside the DAG files | folder of the policies, of `people.yaml` and `inventories/` |
| `lease_ttl` | 30 | seconds after which the lease of a silent worker may be taken over |
| `gate_poll` | 5 | seconds between two looks at the ledger of a task that waits without a worker slot |
| `ledger_patience` | 3600 | seconds that a task waits for an absent ledger before it fails |

With a connection `patching_api` (type http, to Airflow's own API, login and password) the note of a run says in one
sentence what the run waits for or how it ended.

## patch\\_\\_&lt;policy&gt;

All policies give the same tasks, with as many waves and questions as they ask for. Ids never depend on the fleet, so a
policy can be edited in mid-run. This is what the DAG of the
[demo's policy](../../{EXAMPLE}) says of itself.
`apply` is mapped over shards of up to 200 targets.
"""


def page() -> str:
    """Write the page."""
    example = build(load_policy(ROOT / EXAMPLE), Path(EXAMPLE))
    parts = [INTRO, *_described(example), "### Tasks", "", *tasks(example), "", "### Trigger form", "", *form(example)]
    parts += ["", "A file that cannot be read gives a stub with the full graph of eight waves, whose first task fails"]
    parts += ["with the errors of the file: nothing new begins, and a rollout under way goes on with its frozen plan."]
    for dag in (build_emergency(), build_reconcile()):
        parts += ["", f"## {dag.dag_id}", "", *_described(dag)]
        parts += ["### Trigger form", "", *form(dag)] if dag.params else ["### Tasks", "", *tasks(dag)]
    return "\n".join(parts).rstrip() + "\n"


def _described(dag: DAG) -> list[str]:
    """Give what a DAG says of itself, with headings one level below the page's."""
    lines = [f"**{line.lstrip('# ')}**" if line.startswith("## ") else line for line in (dag.doc_md or "").splitlines()]
    return [*lines, ""]


def tasks(dag: DAG) -> list[str]:
    """Make the table of tasks; the repeated waves and questions are shown once."""
    lines = ["| task | what it does | runs | tries |", "|---|---|---|---|"]
    for task in dag.tasks:
        group, _, number = task.task_id.partition(".")[0].rpartition("_")
        if (group == "wave" and number != "1") or (task.task_id.startswith("approve.person_") and task.number > 1):
            continue
        name = task.task_id.replace("wave_1.", "wave_N.").replace("person_1", "person_N")
        rule = "always, whatever came before" if task.trigger_rule == "all_done" else "after success"
        lines.append(f"| `{name}` | {_meaning(task)} | {rule} | {task.retries + 1} |")
    return lines


def _meaning(task: Any) -> str:
    kind = task.operator_class if task.is_mapped else type(task)
    if not kind.__module__.startswith("patching_airflow"):
        return "Triggers the runs that the task before names."
    said = inspect.getdoc(kind) or ""
    return " ".join(said.split("\n\n")[0].replace("``", "`").split())


def form(dag: DAG) -> list[str]:
    """Make the table of what a run can be triggered with (its ``conf``)."""
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name in dag.params:
        item = dag.params.get_param(name)
        meaning = item.schema.get("description_md") or item.schema["title"]
        lines.append(f"| `{name}` | {_kind(item)} | {_default(item)} | {meaning} |")
    return lines


def _default(item: Param) -> str:
    if item.has_value:
        return f"`{item.value!r}`" if item.value not in ("", []) else "–"
    return "–" if "null" in item.schema["type"] else "**required**"


def _kind(item: Param) -> str:
    if "enum" in item.schema:
        return " or ".join(f"`{value}`" for value in item.schema["enum"])
    kinds = item.schema["type"]
    said = kinds if isinstance(kinds, str) else " or ".join(kinds)
    return f"{said} of {item.schema['items']['type']}" if "items" in item.schema else said


def main() -> None:
    """Write the page into the checkout and say so."""
    (ROOT / PAGE).write_text(page(), encoding="utf-8")
    sys.stderr.write(f"wrote {PAGE}\n")


if __name__ == "__main__":
    main()
