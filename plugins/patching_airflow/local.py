"""An Airflow of one machine on loopback: its components started apart, watched, and stopped without a trace.

``airflow standalone`` leaves orphans after a signal, and an orphaned scheduler goes on scheduling.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from patching_airflow.processes import end, family, start_time

COMPONENTS: dict[str, list[str]] = {
    "api-server": ["api-server", "--host", "127.0.0.1", "--port", "{port}"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
CELERY_COMPONENTS: dict[str, list[str]] = {**COMPONENTS, "celery-worker": ["celery", "worker", "--skip-serve-logs"]}
GRACE = 20.0
Say = Callable[[str], None]


class LocalAirflowError(RuntimeError):
    """The local Airflow could not be started or stopped; the message says what to do."""


class LocalAirflow:
    """Its components in one home; users and passwords are for this machine only."""

    def __init__(
        self,
        home: Path,
        dags: Path,
        users: Mapping[str, str],
        settings: Mapping[str, str],
        port: int = 8080,
        executor: str = "LocalExecutor",
        components: Mapping[str, list[str]] = COMPONENTS,
    ) -> None:
        self.home = home
        self.port = port
        self.components = dict(components)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.known: dict[int, str] = {}
        self.passwords = {name: name for name in users}
        self.settings = {**self._defaults(dags, users, executor), **settings}

    @property
    def url(self) -> str:
        """Address of the UI and the API."""
        return f"http://127.0.0.1:{self.port}"

    def _defaults(self, dags: Path, users: Mapping[str, str], executor: str) -> dict[str, str]:
        roles = ",".join(f"{name}:{role}" for name, role in users.items())
        return {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__EXECUTOR": executor,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": roles,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": self._secret("jwt"),
            "AIRFLOW__API__SECRET_KEY": self._secret("api"),
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "2",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            # A supervisor that misses its task's last breath sees the end one heartbeat later; by default 5 s.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            # What a killed scheduler had queued is queued anew within half a minute; by default after five.
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
            "AIRFLOW_CONN_PATCHING_API": json.dumps(
                {"conn_type": "http", "host": "127.0.0.1", "port": self.port, "login": "admin", "password": "admin"}
            ),
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def _secret(self, name: str) -> str:
        path = self.home / f"{name}.secret"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(48))
        return path.read_text()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every component; nothing of an Airflow that is set up elsewhere leaks in."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', '')}"
        return {**inherited, **self.settings, "PATH": path}

    def start(self, say: Say = lambda _line: None, within: float = 120.0) -> None:
        """Migrate the database, start the components, wait until the API answers.

        Raises LocalAirflowError that says in one line what is in the way and how to go on; nothing is left running.
        """
        self.clear()
        self._check_port()
        try:
            self._start(say, within)
        except BaseException:
            self.stop()
            raise

    def _start(self, say: Say, within: float) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "logs").mkdir(exist_ok=True)
        passwords = self.home / "passwords.json"
        passwords.touch(mode=0o600)
        passwords.write_text(json.dumps(self.passwords))
        say("setting up Airflow's database")
        self._run("db", "migrate")
        for name, command in self.components.items():
            self._launch(name, [part.format(port=self.port) for part in command])
        say(f"waiting for Airflow on {self.url}")
        self.ready(within)

    def _check_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError as error:
                raise LocalAirflowError(
                    f"port {self.port} is taken ({error.strerror}): stop what uses it, or set PATCHING_PORT to another"
                ) from error

    def _run(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "airflow", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LocalAirflowError(f"airflow {' '.join(arguments)} failed: {(done.stderr or done.stdout)[-800:]}")

    def _launch(self, name: str, arguments: list[str]) -> None:
        with (self.home / "logs" / f"{name}.log").open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes[name] = process
        self.known[process.pid] = start_time(process.pid) or ""
        self._record()

    def kill(self, name: str) -> None:
        """Kill one component -9, as a machine without memory does; what it started lives on."""
        self.processes[name].kill()
        self.processes[name].wait()

    def restart(self, name: str) -> None:
        """Start one component that was killed."""
        self._launch(name, [part.format(port=self.port) for part in self.components[name]])

    def _record(self) -> None:
        partial = self.home / "processes.json.partial"
        partial.write_text(json.dumps(self.known))
        partial.rename(self.home / "processes.json")

    def ready(self, within: float = 120.0) -> None:
        """Wait until the API answers.

        Raises LocalAirflowError when a component has ended, or when it does not answer in time.
        """
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise LocalAirflowError(f"{name} ended at once: see {self.home / 'logs' / name}.log")
            try:
                if httpx.get(f"{self.url}/api/v2/version", timeout=2.0).status_code == 200:
                    return
            except httpx.TransportError:
                pass  # nobody listens yet
            time.sleep(0.3)
        raise LocalAirflowError(f"Airflow did not answer within {within:.0f} s: see {self.home / 'logs'}")

    def stop(self) -> None:
        """Stop every component and whatever it started: tasks run in sessions of their own and outlive their worker.

        Raises StillRunning when a process does not even end when it is killed.
        """
        running = [*self.processes.values()]
        seen = {**self.known, **family(self.known)}
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while any(process.poll() is None for process in running) and time.monotonic() < deadline:
            time.sleep(0.1)
            seen |= family(seen)
        end(seen, running)
        self.processes.clear()
        self.known.clear()
        (self.home / "processes.json").unlink(missing_ok=True)

    def clear(self) -> None:
        """End what an interrupted time left behind, recognised by pid and start time.

        Raises StillRunning when a process does not even end when it is killed.
        """
        path = self.home / "processes.json"
        if not path.exists():
            return
        recorded = {int(pid): started for pid, started in json.loads(path.read_text()).items()}
        end({pid: started for pid, started in recorded.items() if start_time(pid) == started})
        path.unlink()
