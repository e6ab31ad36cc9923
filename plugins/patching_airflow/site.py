"""The Site of a rollout as an Airflow task composes it: ledger, connections, channels, drivers, metrics, people."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patching.channels.base import Channel
    from patching.drivers.base import PatchDriver
    from patching.rollout.site import Site
    from patching.sources.base import Connection

log = logging.getLogger(__name__)

NOT_ACTIVE = ("success", "failed")
NOT_FOUND = 404
REPORT = "report.report"
NOT_BY_PERSON = ("failed", "upstream_failed", "removed")
"""States of a ``report`` that a person who marks its run does not leave behind."""


def setting(key: str, fallback: str | None = None) -> str | None:
    """Read one key of Airflow's section ``[patching]``."""
    from airflow.configuration import conf

    found = conf.get("patching", key, fallback=fallback)
    return None if found is None else str(found)


def seconds(key: str, fallback: float) -> float:
    """Read a number of seconds of section ``[patching]``."""
    return float(setting(key, str(fallback)) or fallback)


def policies_dir(dag_file: str | Path) -> Path:
    """Give the folder of the policies: ``[patching] policies_dir``, else ``policies`` beside the DAG file.

    Beside the file, and not in a configured DAGs folder: a DAG bundle brings its own policies.
    """
    found = setting("policies_dir")
    return Path(found) if found else Path(dag_file).parent / "policies"


def configured_ledger_url() -> str:
    """Give the URL of ``[patching] ledger_url``; raises LedgerError where none is set."""
    from patching.errors import LedgerError

    url = setting("ledger_url")
    if not url:
        raise LedgerError(
            "no ledger is configured, so nothing may be patched: set [patching] ledger_url "
            "(AIRFLOW__PATCHING__LEDGER_URL), for example to sqlite:////var/lib/patching/ledger.sqlite"
        )
    return url


class AirflowConnections:
    """Connections of Airflow, whatever backend keeps them."""

    def get(self, connection_id: str) -> Connection:
        """Find a connection; raises ConnectionMissing that says what to define."""
        from airflow.sdk import BaseHook
        from airflow.sdk.exceptions import AirflowNotFoundException

        from patching.errors import ConnectionMissing
        from patching.sources.base import Connection

        try:
            found = BaseHook.get_connection(connection_id)
        except AirflowNotFoundException as error:
            raise ConnectionMissing(
                f'connection "{connection_id}" does not exist, so its targets were not touched; define it in Airflow'
            ) from error
        return Connection(
            id=connection_id,
            type=found.conn_type,
            host=found.host,
            port=found.port,
            login=found.login,
            password=found.password,
            schema_=found.schema,
            extra=found.extra_dejson,
        )


def people_of(folder: Path) -> Callable[[Sequence[str]], tuple[str, ...]]:
    """Make the resolver of approver groups; without people.yaml every name is a user."""
    from patching.people import load_people

    people = load_people(folder)
    return (lambda names: tuple(names)) if people is None else people.resolve


def _channel(connections: AirflowConnections, open_channels: dict[str, Channel], connection_id: str) -> Channel:
    from patching.channels.simulated import SimulatedChannel, SimulatedFleet
    from patching.channels.ssh import SshChannel

    if connection_id not in open_channels:
        found = connections.get(connection_id)
        folder = found.extra.get("simulated_fleet")
        open_channels[connection_id] = (
            SimulatedChannel(SimulatedFleet(Path(str(folder))))
            if folder
            else SshChannel.named(connection_id, connections)
        )
    return open_channels[connection_id]


def _driver(name: str, options: dict[str, object]) -> PatchDriver:
    from patching.registry import driver_class, options_class

    kind: Any = driver_class(name)
    return kind(options_class(name).model_validate(options)) if options else kind()


def _metrics(connections: AirflowConnections, connection_id: str) -> Any:
    from patching.sources.prometheus import PrometheusSource

    return PrometheusSource(connections.get(connection_id))


def _database(connections: AirflowConnections, connection_id: str) -> Any:
    from patching.sources.sql import SqlSource

    return SqlSource(connections.get(connection_id))


def _polled(connections: AirflowConnections, check: Any) -> Any:
    from patching.sources.http_json import HttpJsonSource

    return HttpJsonSource(check, connections)


def run_active(task_instance: Any, run: str) -> bool | None:
    """Say whether a DAG run (``dag::run``) is still at work, None when Airflow does not know it.

    Where Airflow does not answer, it is taken as at work: nobody else begins anything then.
    """
    from airflow.sdk.exceptions import AirflowRuntimeError

    dag_id, _, run_id = run.partition("::")
    try:
        state = task_instance.get_dagrun_state(dag_id, run_id)
    except AirflowRuntimeError as error:
        if (error.error.detail or {}).get("status_code") == NOT_FOUND:
            log.warning("Airflow does not know run %s, so it is taken as ended: %s", run, error)
            return None
        log.warning("Airflow does not say how run %s is, so it is taken as at work: %s", run, error)
        return True
    return str(getattr(state, "value", state)) not in NOT_ACTIVE


def run_lost(task_instance: Any, run: str) -> str | None:
    """Say how a DAG run (``dag::run``) without a report was lost, None where a person ended it or nobody can tell.

    Marking a run failed makes Airflow skip its ``report``; a ``report`` that failed had a worker, which died.
    """
    from airflow.sdk.exceptions import AirflowRuntimeError

    active = run_active(task_instance, run)
    if active is None:
        return "was deleted"
    dag_id, _, run_id = run.partition("::")
    try:
        found = {} if active else task_instance.get_task_states(dag_id, task_ids=[REPORT], run_ids=[run_id])
    except AirflowRuntimeError as error:
        log.warning("Airflow does not say how the tasks of run %s ended: %s", run, error)
        return None
    state = found.get(run_id, {}).get(REPORT)
    return "lost the worker of its report" if str(getattr(state, "value", state)) in NOT_BY_PERSON else None


def task_site(context: Any) -> Site:
    """Compose the Site for the task that runs now."""
    from patching.rollout.site import Site
    from patching_airflow.known_ledger import open_known_ledger

    task_instance = context["ti"]
    connections, folder = AirflowConnections(), policies_dir(context["dag"].fileloc)
    crash_at = os.environ.get("PATCHING_CRASH_AT")
    return Site(
        ledger=open_known_ledger(),
        clock=lambda: datetime.now(UTC),
        connections=connections,
        channel=partial(_channel, connections, {}),
        driver=_driver,
        metrics=partial(_metrics, connections),
        databases=partial(_database, connections),
        polled=partial(_polled, connections),
        policies_dir=folder,
        owner=f"{socket.gethostname()}:{os.getpid()}:{task_instance.task_id}:{task_instance.map_index}",
        people=people_of(folder),
        run_active=partial(run_active, task_instance),
        run_lost=partial(run_lost, task_instance),
        crash=partial(_crash, crash_at) if crash_at else _go_on,
        log=task_instance.log.info if hasattr(task_instance, "log") else log.info,
        lease_ttl=seconds("lease_ttl", 30),
    )


def _go_on(_point: str) -> None:
    return None


def _crash(wanted: str, point: str) -> None:
    """Kill this task at a named crash point, once for each marker file: only fault tests set PATCHING_CRASH_AT."""
    import signal

    name, _, marker = wanted.partition("@")
    path = Path(marker)
    if point == name and path.exists():
        path.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
