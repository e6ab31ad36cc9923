"""``patching status`` and ``patching report`` against an HTTP server that answers with the API's own documents (S7)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

import pytest

from patching.cli import main as cli
from patching.cli import status as command
from patching.ledger.entry import EntryKind
from patching.report.rollout_report import make_report
from patching.report.rollout_view import VIEW_KINDS, overview_line, rollout_view
from patching.report.status_text import changes_text, rollout_text
from rollout_page.stories import Story, at_work, held, open_story_ledger, undone

pytestmark = pytest.mark.slow

Document = dict[str, Any]


def view(story: Story) -> Document:
    ledger = story.ledger
    row = ledger.rollout(story.rollout)
    assert row is not None
    entries = ledger.entries(story.rollout, kinds=VIEW_KINDS)
    measured = {e.body["data"]: ledger.document(e.body["data"]) for e in entries if e.kind is EntryKind.MEASURED}
    made = rollout_view(row, ledger.targets(story.rollout), story.plan, entries, ledger.now(), measured=measured)
    return dict(json.loads(json.dumps(made)))


@cache
def _told(tell: Any, size: int) -> str:
    with TemporaryDirectory() as folder:
        ledger, clock = open_story_ledger(Path(folder))
        return json.dumps(view(tell(ledger, clock, size)))


def told(tell: Any, size: int = 12) -> Document:
    """Give a story's document; it is written once, because a ledger that syncs to disk takes its time."""
    return dict(json.loads(_told(tell, size)))


class Api:
    """Documents by path; a list of them is given one after the other. Anything else is 404."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Any]] = {}
        self.asked: list[str] = []

    def answer(self, path: str) -> tuple[int, Any]:
        self.asked.append(path)
        found = self.answers.get(path.partition("?")[0])
        if found is None:
            return 404, {"detail": "the ledger has no such rollout"}
        first = found.pop(0) if len(found) > 1 else found[0]
        return first if isinstance(first, tuple) else (200, first)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    made = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["Authorization"] == "Bearer token"
            status, found = made.answer(self.path)
            sent = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: Any) -> None:
            """Be quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("PATCHING_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("PATCHING_TOKEN", "token")
        monkeypatch.setattr(command, "PAUSE", 0.01)
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    ledger, clock = open_story_ledger(tmp_path_factory.mktemp("story"))
    return held(ledger, clock, 12)


def test_open_rollouts_are_listed_with_what_they_wait_for(
    api: Api, story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    row = story.ledger.rollout(story.rollout)
    assert row is not None
    line = overview_line(row, story.ledger.targets(row.id))
    api.answers["/patching/api/rollouts"] = [{"schema_version": 1, "stop_switch": "power cut", "rollouts": [line]}]
    assert cli.run(["status"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "EVERYTHING IS STOPPED: power cut"
    assert out[1].startswith(f"{story.rollout}  HELD  7 of 12 applied")
    assert out[2].startswith("    waits for a person")
    assert api.asked == ["/patching/api/rollouts?open=true"]


def test_all_and_policy_are_asked_of_the_api(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.answers["/patching/api/rollouts"] = [{"schema_version": 1, "stop_switch": None, "rollouts": []}]
    assert cli.run(["status", "--all", "--policy", "patch__web"]) == 0
    assert api.asked == ["/patching/api/rollouts?policy=web"]
    assert capsys.readouterr().out == "no rollout yet\n"


def test_one_rollout_is_shown_with_waves_targets_and_what_to_do(
    api: Api, story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answers[f"/patching/api/rollouts/{story.rollout}"] = [view(story)]
    assert cli.run(["status", story.rollout]) == 0
    out = capsys.readouterr().out
    assert out.startswith("HELD: 7 of 12 applied")
    assert "  1 canary  3 of 3 ended  promoted: errors:" in out
    assert "  web-08  wave 2  offline: no connection" in out
    assert "What a person must do next\n  - Decide" in out


@pytest.mark.parametrize(("tell", "code"), [(held, 3), (undone, 1), (at_work, 0)])
def test_exit_code_says_how_the_rollout_stands(
    api: Api, tell: Any, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answers["/patching/api/rollouts/r"] = [told(tell)]
    assert cli.run(["status", "r", "--exit-code"]) == code
    assert cli.run(["status", "r"]) == 0
    assert capsys.readouterr().out


def test_json_is_the_apis_document(api: Api, story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    api.answers["/patching/api/rollouts/r"] = [view(story)]
    assert cli.run(["status", "r", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == view(story)


def changed(document: Document, **rollout: Any) -> Document:
    made: Document = json.loads(json.dumps(document))
    made["rollout"] |= rollout
    return made


def test_watch_tells_each_change_once_until_the_end(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    first = told(at_work, 40)
    later = changed(first, state="completed", reason="40 targets run what was planned", final=True)
    busy = next(item for item in later["targets"] if item["state"] == "running")
    busy |= {"state": "ended", "shown_as": "applied"}
    api.answers["/patching/api/rollouts/r"] = [first, first, {**first, "as_of": later["as_of"]}, later]
    assert cli.run(["status", "r", "--watch"]) == 0
    assert len(api.asked) == 4
    told_after = capsys.readouterr().out.removeprefix(rollout_text(first) + "\n").splitlines()
    assert [line.partition("  ")[2] for line in told_after] == [
        "running -> completed: 40 targets run what was planned",
        f"{busy['name']}: applied",
    ]


def test_watch_outlives_a_restart_of_the_api_server(api: Api, story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    first = view(story)
    down = (503, {"detail": "starting"})
    api.answers["/patching/api/rollouts/r"] = [first, down, down, changed(first, final=True)]
    assert cli.run(["status", "r", "--watch"]) == 0
    assert capsys.readouterr().err.count("trying again") == 1


def test_watch_with_json_gives_one_document_a_line(api: Api, story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    first = view(story)
    api.answers["/patching/api/rollouts/r"] = [first, first, changed(first, final=True)]
    assert cli.run(["status", "r", "--watch", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["rollout"]["final"] for line in lines] == [False, True]


@pytest.mark.parametrize("name", ["status", "report"])
def test_unknown_rollout_exits_1_and_says_where_to_look(
    api: Api, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([name, "nobody/../x"]) == 1
    assert capsys.readouterr().err == (
        "error: the ledger has no rollout nobody/../x; `patching status --all` lists those that you may read\n"
    )
    assert api.asked[0].startswith("/patching/api/rollouts/nobody%2F..%2Fx")


@pytest.mark.parametrize("words", [["--watch"], ["--exit-code"], ["r", "--all"], ["r", "--policy", "web"]])
def test_options_that_do_not_fit_exit_2(api: Api, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["status", *words]) == 2
    assert api.asked == []
    assert capsys.readouterr().out == ""


def test_report_is_markdown_or_json(api: Api, story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    ledger, row = story.ledger, story.ledger.rollout(story.rollout)
    assert row is not None
    made = make_report(ledger.entries(row.id), story.plan, row, ledger.targets(row.id), ledger.now())
    answer = {"schema_version": 1, "report": made.document, "markdown": made.markdown}
    api.answers[f"/patching/api/rollouts/{row.id}/report"] = [answer]
    assert cli.run(["report", row.id]) == 0
    assert capsys.readouterr().out == made.markdown + "\n"
    assert cli.run(["report", row.id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == made.document


def test_report_comes_with_a_picture_of_each_metric_and_wave(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = told(undone)
    (plot,) = document["plots"]
    document["plots"] = [plot, {**plot, "wave": 2, "check": "errors of ../db", "unit": "level"}]
    api.answers["/patching/api/rollouts/r/report"] = [{"schema_version": 1, "report": {}, "markdown": "# r"}]
    api.answers["/patching/api/rollouts/r"] = [document]
    assert cli.run(["report", "r", "--pictures", str(tmp_path / "new")]) == 0
    written = sorted((tmp_path / "new").iterdir())
    assert [file.name for file in written] == ["wave-1-errors.svg", "wave-2-errors-of-..-db.svg"]
    for file in written:
        root = ElementTree.fromstring(file.read_text(encoding="utf-8"))  # noqa: S314
        assert len(root.findall("{http://www.w3.org/2000/svg}path")) == 3
    assert capsys.readouterr().out == "# r\n"


def test_large_fleet_shows_who_does_something_or_went_wrong() -> None:
    document = told(at_work, 200)
    text = rollout_text(document)
    assert len(text.splitlines()) < 70
    assert "of 200; the others are applied, pending or had nothing to do" in text
    failed = next(item["name"] for item in document["targets"] if item["shown_as"] == "failed")
    assert failed in text


def test_names_and_output_of_hosts_cannot_steer_the_terminal() -> None:
    document = told(held)
    document["targets"][7]["detail"] = "\x1b[2Jgone\x07\nsecond line"
    document["targets"][7]["name"] = "web\x1b]0;x\x07"
    for text in (rollout_text(document), changes_text(told(held), document)):
        assert "\x1b" not in text
        assert "\x07" not in text
    assert "?[2Jgone? second line" in rollout_text(document)
