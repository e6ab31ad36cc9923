"""Delivery by Airflow notifiers to real receivers on loopback that count what they get."""

from __future__ import annotations

import json
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_string
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from patching.report.notice import Notice
from patching.rollout.states import RolloutState
from patching.rollout.telling import DeliveryFailed, tell_all
from patching_airflow.notifying import deliver
from unit.rollout.fleet import Fleet

NOTICE = Notice(
    id="web-1:held:7",
    event="held",
    connection="hook",
    policy="web",
    rollout="web-1",
    sentence="web: held: <verdict>",
    covers=(7,),
    at=datetime(2026, 11, 24, 12, 0, tzinfo=UTC),
)


@dataclass
class Receiver:
    """What came in; ``status`` is what is answered."""

    port: int = 0
    status: int = 200
    got: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)


@contextmanager
def served(server: socketserver.BaseServer) -> Iterator[None]:
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            kept.got.append((self.path, dict(self.headers), body))
            self.send_response(kept.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.port = server.server_address[1]
    with served(server):
        yield kept


def connection(monkeypatch: pytest.MonkeyPatch, name: str, **fields: Any) -> None:
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(fields))


def test_webhook_gets_one_json_document_that_slack_shows_too(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    connection(monkeypatch, "hook", conn_type="http", host=f"http://127.0.0.1:{receiver.port}/hooks/a")
    deliver(NOTICE)
    ((path, headers, body),) = receiver.got
    assert path == "/hooks/a"
    assert headers["Idempotency-Key"] == "web-1:held:7"
    assert body["text"] == "[patching] held: web: held: <verdict> (change web-1)"
    assert (body["event"], body["change_id"], body["policy"]) == ("held", "web-1", "web")


def test_secret_part_of_a_slack_url_is_the_connections_password_and_in_no_error(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    host = f"http://127.0.0.1:{receiver.port}/services"
    connection(monkeypatch, "hook", conn_type="slackwebhook", host=host, password="T0/B0/s3cret")
    deliver(NOTICE)
    assert receiver.got[0][0] == "/services/T0/B0/s3cret"
    receiver.status = 404
    with pytest.raises(DeliveryFailed) as caught:
        deliver(NOTICE)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("status", [400, 500])
def test_refusal_is_a_failed_delivery_with_its_kind(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver, status: int
) -> None:
    receiver.status = status
    connection(monkeypatch, "hook", conn_type="http", host="127.0.0.1", port=receiver.port)
    with pytest.raises(DeliveryFailed, match="over connection hook"):
        deliver(NOTICE)
    assert len(receiver.got) == 1


NAMED = "airflow.providers.http.notifications.http.HttpNotifier"


def test_notifier_that_the_connection_names_is_made_with_its_arguments_which_see_the_notice(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    connection(monkeypatch, "pager", conn_type="http", host="127.0.0.1", port=receiver.port)
    arguments = {
        "http_conn_id": "pager",
        "endpoint": "v2/enqueue",
        "json": {"summary": "{{ text }}", "dedup_key": "{{ notice }}", "group": "{{ change_id }}"},
        "headers": {"Content-Type": "application/json"},
    }
    connection(monkeypatch, "hook", conn_type="generic", extra={"notifier": NAMED, "arguments": arguments})
    hostile = NOTICE.model_copy(update={"sentence": "web: {{ 6 * 7 }}"})
    deliver(hostile)
    ((path, _, body),) = receiver.got
    assert path == "/v2/enqueue"
    assert body == {"summary": hostile.text, "dedup_key": "web-1:held:7", "group": "web-1"}
    assert "{{ 6 * 7 }}" in body["summary"]


def test_failure_that_a_called_notifier_would_swallow_is_a_failed_delivery(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    receiver.status = 500
    connection(monkeypatch, "pager", conn_type="http", host="127.0.0.1", port=receiver.port)
    extra = {"notifier": NAMED, "arguments": {"http_conn_id": "pager", "json": {"text": "{{ text }}"}}}
    connection(monkeypatch, "hook", conn_type="generic", extra=extra)
    with pytest.raises(DeliveryFailed, match="over connection hook"):
        deliver(NOTICE)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"notifier": "nowhere.Notifier"}, "nowhere"),
        ({"notifier": "pathlib.Path"}, "it is no notifier"),
        ({"notifier": NAMED, "arguments": {"channel": "#sre"}}, "channel"),
    ],
)
def test_notifier_that_cannot_be_made_is_a_failed_delivery_that_says_what_to_write(
    monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], said: str
) -> None:
    connection(monkeypatch, "hook", conn_type="generic", extra=extra)
    with pytest.raises(DeliveryFailed, match=said) as caught:
        deliver(NOTICE)
    assert 'needs "notifier", the path of an installed class' in str(caught.value)


def test_connection_that_does_not_exist_is_a_failed_delivery() -> None:
    with pytest.raises(DeliveryFailed, match="NotFound"):
        deliver(NOTICE)


async def test_held_rollout_reaches_the_webhook_once_however_often_it_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver, tmp_path: Path
) -> None:
    connection(monkeypatch, "hook", conn_type="http", host="127.0.0.1", port=receiver.port)
    fleet = Fleet(tmp_path, hosts=3, notify=[{"events": ["held"], "connection": "hook"}])
    await fleet.begin()
    await fleet.gate(1)
    fleet.ledger.transition(fleet.rollout, RolloutState.HELD, reason="alice: odd")
    receiver.status = 503
    tell_all(fleet.site, deliver)
    receiver.status = 200
    for _ in range(4):
        fleet.clock.advance(minutes=5)
        tell_all(fleet.site, deliver)
    assert [body["notice"] for _, _, body in receiver.got] == [receiver.got[0][2]["notice"]] * 2
    assert receiver.got[-1][2]["change_id"] == fleet.rollout


class Mails(socketserver.StreamRequestHandler):
    """As much of a mail server as a client needs."""

    def handle(self) -> None:
        self.say("220 here")
        while line := self.rfile.readline().decode().strip():
            if line.upper() == "DATA":
                self.say("354 go on")
                text = "".join(iter(lambda: self.rfile.readline().decode(), ".\r\n"))
                self.server.got.append(text)  # type: ignore[attr-defined]
            self.say("221 bye" if line.upper() == "QUIT" else "250 ok")

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


def test_mail_has_the_event_in_its_subject_and_the_change_id(monkeypatch: pytest.MonkeyPatch) -> None:
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mails)
    server.daemon_threads = True
    got: list[str] = []
    server.got = got  # type: ignore[attr-defined]
    extra = {"disable_ssl": True, "disable_tls": True, "from_email": "patching@example.org", "to": "sre@example.org"}
    port = server.server_address[1]
    connection(monkeypatch, "hook", conn_type="smtp", host="127.0.0.1", port=port, extra=extra)
    with served(server):
        deliver(NOTICE)
    (text,) = got
    mail = message_from_string(text)
    assert (mail["Subject"], mail["To"]) == ("[patching] web: held", "sre@example.org")
    (part,) = [item for item in mail.walk() if item.get_content_type() == "text/html"]
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    assert "held: &lt;verdict&gt; (change web-1)" in payload.decode()


def test_mail_connection_without_a_receiver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    connection(monkeypatch, "hook", conn_type="smtp", host="127.0.0.1", port=9)
    with pytest.raises(DeliveryFailed, match='has no "to" in its extra'):
        deliver(NOTICE)
