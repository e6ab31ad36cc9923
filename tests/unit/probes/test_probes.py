"""Per-target probes (S5, F3, F9): a failure is the target's, unknown is everything else, and only ok is a pass."""

from __future__ import annotations

import http.server
import shlex
import socket
import subprocess
import threading
from collections.abc import Iterator

import httpx
import pytest

from patching.change import Phase, Reply, Step, StepKind
from patching.channels.base import Handle, Progress
from patching.errors import TargetOffline
from patching.policy import Check, CommandProbe, HttpProbe, PrometheusCheck, UnitProbe
from patching.probes.checks import run_probes
from patching.probes.command import command_step
from patching.probes.http import http_probe
from patching.probes.unit import unit_step
from patching.target import Member, Target

HERE = Target(name="web-1", labels={"port": "80"}, members=(Member(address="127.0.0.1"),))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = {"/moved": 302, "/broken": 500}.get(self.path, 200)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/")
        self.end_headers()
        self.wfile.write(b"version 2 is healthy")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{{address}}:{server.server_address[1]}"
        server.shutdown()
        thread.join()


async def ask(url: str, **more: object) -> tuple[bool | None, str]:
    probe = HttpProbe.model_validate({"url": url, "timeout": 2.0} | more)
    result = await http_probe("page", probe, HERE)
    assert (result.check, result.target) == ("page", "web-1")
    return result.ok, result.detail


async def test_expected_status_and_text_pass(url: str) -> None:
    ok, detail = await ask(f"{url}/", contains="version 2")
    assert ok is True
    assert "http://127.0.0.1:" in detail


@pytest.mark.parametrize(
    ("path", "more", "words"),
    [
        ("/broken", {}, "status 500, expected 200"),
        ("/moved", {}, "status 302, expected 200"),
        ("/", {"contains": "version 3"}, 'does not contain "version 3"'),
    ],
)
async def test_wrong_status_redirect_or_text_fails(url: str, path: str, more: dict[str, object], words: str) -> None:
    ok, detail = await ask(url + path, **more)
    assert ok is False
    assert words in detail


async def test_status_that_the_policy_lists_passes(url: str) -> None:
    assert (await ask(f"{url}/moved", status=[200, 302]))[0] is True


async def test_refused_connection_is_the_targets_failure() -> None:
    """F3: a service that does not listen any more is a regression."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        ok, detail = await ask(f"http://{{address}}:{unused.getsockname()[1]}/")
    assert ok is False
    assert "refused" in detail.lower() or "connect" in detail.lower()


async def test_service_that_accepts_and_never_answers_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ok, detail = await ask(f"http://{{address}}:{server.getsockname()[1]}/", timeout=0.2)
    assert ok is False
    assert "no answer within 0.2 s" in detail


async def test_service_that_hangs_up_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            connection, _ = server.accept()
            connection.recv(1024)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        ok, _ = await ask(f"http://{{address}}:{server.getsockname()[1]}/")
        thread.join()
    assert ok is False


async def test_broken_tls_is_the_targets_failure(url: str) -> None:
    """F3: a service that came back without its certificate is a regression."""
    ok, detail = await ask(url.replace("http:", "https:"))
    assert ok is False, detail


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (httpx.ConnectError("Name or service not known"), socket.gaierror(-2, "Name or service not known")),
        (httpx.ConnectError("No route to host"), OSError(113, "No route to host")),
        (httpx.ConnectTimeout(""), None),
    ],
    ids=["dns", "no-route", "connect-timeout"],
)
async def test_workers_own_trouble_is_unknown_and_no_pass(
    monkeypatch: pytest.MonkeyPatch, error: httpx.HTTPError, cause: OSError | None
) -> None:
    """F9: what the worker's network cannot tell is neither a pass nor the target's failure."""

    class Broken(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            raise error from cause

    original = httpx.AsyncClient
    monkeypatch.setattr(
        httpx, "AsyncClient", lambda timeout, trust_env: original(transport=Broken(), timeout=timeout, trust_env=False)
    )
    assert (await ask("http://{address}/"))[0] is None


@pytest.mark.parametrize("url", ["ftp://{address}/", "http://{address}:port/"])
async def test_url_that_is_none_is_unknown_and_no_pass(url: str) -> None:
    ok, detail = await ask(url)
    assert ok is None
    assert "no usable URL" in detail


def test_command_is_the_policys_shell_and_only_the_placeholders_are_quoted() -> None:
    evil = Target(name="web; touch /tmp/x", members=(Member(address="$(id)"),))
    step = command_step("smoke", CommandProbe(run="echo {name} {address} | grep -c web", sudo=True, timeout=7.0), evil)
    quoted = f"echo {shlex.quote(evil.name)} {shlex.quote(evil.address)} | grep -c web"
    assert step.call == {"script": quoted, "sudo": True}
    assert (step.phase, step.kind, step.deadline) == (Phase.VERIFY, StepKind.READ, 7.0)


def systemctl(tmp_path: object, states: str) -> dict[str, str]:
    """A PATH whose systemctl answers one state after the other, and whose sleep takes no time."""
    folder = str(tmp_path)
    scripts = {
        "systemctl": f'read -r first < {folder}/states; sed -i 1d {folder}/states; echo "$first"\n',
        "service": f'read -r code < {folder}/states; sed -i 1d {folder}/states; echo "$1" >> {folder}/asked\n'
        'exit "$code"\n',
        "sleep": ":\n",
    }
    for name, text in scripts.items():
        with open(f"{folder}/{name}", "w") as file:  # noqa: PTH123
            file.write("#!/bin/sh\n" + text)
        subprocess.run(["chmod", "+x", f"{folder}/{name}"], check=True)
    with open(f"{folder}/states", "w") as file:  # noqa: PTH123
        file.write(states)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def run_unit(tmp_path: object, states: str, *units: str, systemd: bool) -> subprocess.CompletedProcess[str]:
    script = unit_step("units", UnitProbe(active=units)).call["script"]
    test = "[ -d / ]" if systemd else "[ -d /nowhere ]"
    script = script.replace("[ -d /run/systemd/system ]", test)
    environment = systemctl(tmp_path, states)
    return subprocess.run(
        ["/bin/sh", "-eu", "-c", script], env=environment, capture_output=True, text=True, timeout=20, check=False
    )


def test_active_units_pass_and_are_said(tmp_path: object) -> None:
    ended = run_unit(tmp_path, "active\nactive\n", "nginx", "we ird@1.service", systemd=True)
    assert (ended.returncode, ended.stdout) == (0, "nginx: active\nwe ird@1.service: active\n")


def test_one_failed_unit_fails_the_probe_and_the_others_are_still_said(tmp_path: object) -> None:
    ended = run_unit(tmp_path, "failed\nactive\n", "nginx", "cron", systemd=True)
    assert (ended.returncode, ended.stdout) == (1, "nginx: failed\ncron: active\n")


def test_starting_unit_is_asked_again_until_it_is_active(tmp_path: object) -> None:
    assert run_unit(tmp_path, "activating\nactivating\nactive\n", "nginx", systemd=True).returncode == 0


def test_unit_that_starts_for_ever_fails(tmp_path: object) -> None:
    ended = run_unit(tmp_path, "activating\n" * 40, "nginx", systemd=True)
    assert (ended.returncode, ended.stdout) == (1, "nginx: activating\n")


def test_without_systemd_the_init_script_is_asked_by_its_own_name(tmp_path: object) -> None:
    ended = run_unit(tmp_path, "0\n3\n", "nginx.service", "cron", systemd=False)
    assert (ended.returncode, ended.stdout) == (1, "nginx.service: active\ncron: not running\n")
    with open(f"{tmp_path}/asked") as file:  # noqa: PTH123
        assert file.read() == "nginx\ncron\n"


class Replying:
    """A session that answers reading steps by a plan; everything else is beyond a probe."""

    def __init__(self, *answers: Reply | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[Step] = []

    @property
    def lost(self) -> bool:
        return False

    async def read(self, step: Step) -> Reply:
        self.asked.append(step)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def start(self, step_id: str, step: Step) -> Handle:
        raise AssertionError("a probe starts nothing")

    async def wait(self, handle: Handle, step: Step) -> Progress:
        raise AssertionError("a probe starts nothing")

    async def look(self, step_id: str, step: Step) -> Progress:
        raise AssertionError("a probe starts nothing")

    async def forbid(self, step_id: str, step: Step) -> Progress:
        raise AssertionError("a probe starts nothing")

    async def cancel(self, handle: Handle) -> None:
        raise AssertionError("a probe starts nothing")

    async def close(self) -> None:
        raise AssertionError("the session is its owner's to close")


COMMAND = Check(name="smoke", command=CommandProbe(run="true"))
UNIT = Check(name="unit", unit=UnitProbe(active=("nginx",)))
METRIC = Check(name="errors", prometheus=PrometheusCheck(connection="p", errors="e{$series}", requests="r{$series}"))


async def test_checks_are_asked_in_order_and_metrics_passed_over() -> None:
    session = Replying(Reply(step="x", exit_code=0), Reply(step="x", exit_code=1, stdout="nginx: failed\n"))
    found = await run_probes(session, HERE, [COMMAND, METRIC, UNIT])
    assert [(result.check, result.ok, result.detail) for result in found] == [
        ("smoke", True, "exit 0"),
        ("unit", False, "exit 1: nginx: failed"),
    ]
    assert [step.name for step in session.asked] == ["probe-smoke", "probe-unit"]


@pytest.mark.parametrize("answer", [Reply(step="x", exit_code=None), TargetOffline("no route")])
async def test_end_that_nobody_saw_is_unknown_and_no_pass(answer: Reply | Exception) -> None:
    """F9: neither a lost exit code nor a lost connection is a pass."""
    found = await run_probes(Replying(answer), HERE, [COMMAND])
    assert found[0].ok is None


async def test_long_output_is_capped_in_the_detail() -> None:
    found = await run_probes(Replying(Reply(step="x", exit_code=1, stderr="x" * 10_000)), HERE, [COMMAND])
    assert len(found[0].detail) == 300
