"""``make airflow``: an Airflow of this machine on this checkout's policies, for trying; Ctrl-C stops all of it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from patching_airflow.local import LocalAirflow, LocalAirflowError

ROOT = Path(__file__).resolve().parents[2]
USERS = {"admin": "admin", "alice": "op", "bob": "op", "carol": "viewer"}
# Everything else of an Airflow that is set up in this shell belongs to that one.
PASSED_ON = ("AIRFLOW_CONN_", "AIRFLOW__PATCHING__")


class Interrupted(BaseException):
    """The person pressed Ctrl-C, or somebody asked it to end."""


def interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Turn a signal into an orderly end."""
    raise Interrupted


def composed(home: Path, environment: Mapping[str, str]) -> LocalAirflow:
    """Put it together: the ledger lies in ``home`` unless the environment names another; raises ValueError."""
    given = {key: value for key, value in environment.items() if key.startswith(PASSED_ON)}
    settings = {"AIRFLOW__PATCHING__LEDGER_URL": f"sqlite:///{home}/ledger.sqlite", **given}
    return LocalAirflow(home, ROOT / "dags", USERS, settings, port=int(environment.get("PATCHING_PORT", "8080")))


def greeting(airflow: LocalAirflow) -> str:
    """Say where it is, who may log in, and how the command line finds it."""
    return (
        f"Airflow: {airflow.url}   log in as alice or bob (password = name), or admin\n"
        f"policies: {ROOT / 'dags' / 'policies'}   ledger: {airflow.settings['AIRFLOW__PATCHING__LEDGER_URL']}\n"
        f"command line: export PATCHING_URL={airflow.url} PATCHING_USER=alice PATCHING_PASSWORD=alice\n"
        "Ctrl-C stops it; what it recorded stays. It is for trying, on this machine only."
    )


def main() -> int:
    """Start it, wait for the end, stop it; exit status 1 where it cannot be started."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    airflow = composed(ROOT / ".airflow", os.environ)
    try:
        airflow.start(say=lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
        print(greeting(airflow), flush=True)  # noqa: T201
        while True:
            signal.pause()
    except Interrupted:
        return 0
    except LocalAirflowError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        airflow.stop()


if __name__ == "__main__":
    sys.exit(main())
