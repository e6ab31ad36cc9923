"""The pages inside a real Airflow (V2, I10): its login guards them, and its run page shows the Patching tab.

``PATCHING_UPDATE_IMAGES=1`` also writes docs/images/held-wave-in-airflow.png anew.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from patching_airflow.local import LocalAirflow
from rollout_page.stories import RUN, held, open_story_ledger

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
IMAGES = Path(__file__).parents[2] / "docs/images"
DAG = "patch__web-os-security"
DAGS = Path(__file__).parents[2] / "dags"
SMALL_DAG = f"""
import sys
sys.path.insert(0, {str(DAGS)!r})
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowFailException
from patching_dags.rollout import policy_params
with DAG("{DAG}", schedule=None, is_paused_upon_creation=False, tags=["patching"], params=policy_params("apply")):
    @task
    def report():
        raise AirflowFailException("held")
    report()
"""

pytestmark = [pytest.mark.airflow, pytest.mark.e2e]


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    home = tmp_path_factory.mktemp("airflow")
    ledger, clock = open_story_ledger(home)
    held(ledger, clock, 12)
    ledger.close()
    dags = home / "dags"
    dags.mkdir()
    (dags / "small.py").write_text(SMALL_DAG)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"AIRFLOW__PATCHING__LEDGER_URL": f"sqlite:///{home}/ledger.sqlite"}
    started = LocalAirflow(home, dags, {"admin": "admin", "carol": "viewer"}, settings, port=port)
    try:
        started.start()
        yield started
    finally:
        started.stop()


def token(airflow: LocalAirflow, name: str) -> dict[str, str]:
    answer = httpx.post(
        f"{airflow.url}/auth/token", json={"username": name, "password": airflow.passwords[name]}, timeout=20
    )
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


@pytest.fixture(scope="module")
def run_path(airflow: LocalAirflow) -> str:
    """Trigger the run that the ledger's rollout belongs to, and wait until Airflow shows it."""
    headers, dag = token(airflow, "admin"), f"{airflow.url}/api/v2/dags/{DAG}"
    deadline = time.monotonic() + 60
    while httpx.get(dag, headers=headers, timeout=20).status_code != 200:
        assert time.monotonic() < deadline, "the DAG was not parsed within 60 s"
        time.sleep(0.5)
    asked = {"dag_run_id": RUN, "logical_date": None}
    httpx.post(f"{dag}/dagRuns", headers=headers, json=asked, timeout=20).raise_for_status()
    while httpx.get(f"{dag}/dagRuns/{quote(RUN)}", headers=headers, timeout=20).json()["state"] != "failed":
        assert time.monotonic() < deadline, "the run did not end within 60 s"
        time.sleep(0.5)
    return f"{DAG}/{quote(RUN, safe='')}"


def test_airflow_lists_both_views(airflow: LocalAirflow) -> None:
    plugins = httpx.get(f"{airflow.url}/api/v2/plugins", headers=token(airflow, "admin"), timeout=20).json()["plugins"]
    (ours,) = [plugin for plugin in plugins if plugin["name"] == "patching"]
    assert {view["destination"] for view in ours["external_views"]} == {"dag_run", "nav"}


@pytest.mark.parametrize(
    "path",
    ["rollouts", "rollouts/web-os-security-20261124-220000-1", f"run/{DAG}/{quote(RUN, safe='')}"],
)
def test_airflows_login_guards_the_api(airflow: LocalAirflow, path: str) -> None:
    url = f"{airflow.url}/patching/api/{path}"
    assert httpx.get(url, timeout=20).status_code == 401
    assert httpx.get(url, headers={"Authorization": "Bearer forged"}, timeout=20).status_code in (401, 403)
    assert httpx.get(url, headers=token(airflow, "carol"), timeout=20).status_code == 200


def test_airflows_login_guards_what_changes_a_rollout(airflow: LocalAirflow) -> None:
    """A viewer has no right to edit runs, so nothing of this is theirs; who did it is the login (S8)."""
    rollout = f"{airflow.url}/patching/api/rollouts/web-os-security-20261124-220000-1"
    stop_all = f"{airflow.url}/patching/api/stop-all?dag_id={DAG}"
    asked, viewer, admin = {"reason": "real login"}, token(airflow, "carol"), token(airflow, "admin")
    for url in (f"{rollout}/hold", f"{rollout}/promote", stop_all):
        assert httpx.post(url, json=asked, timeout=20).status_code == 401, url
        assert httpx.post(url, json=asked, headers=viewer, timeout=20).status_code == 403, url
        assert httpx.get(url, headers=admin, timeout=20).status_code in (404, 405), url
        assert httpx.post(url, data=asked, headers=admin, timeout=20).status_code == 415, url
    refused = httpx.post(f"{rollout}/hold", json=asked, headers=admin, timeout=20)
    assert (refused.status_code, '"held" already' in refused.json()["detail"]) == (409, True)
    for on in (True, False):
        answer = httpx.post(stop_all, json={**asked, "on": on}, headers=admin, timeout=20)
        assert (answer.status_code, answer.json()["by"]) == (200, "admin")


def test_run_page_has_a_patching_tab_that_shows_the_held_wave(airflow: LocalAirflow, run_path: str) -> None:
    dag, run = run_path.split("/")
    with playwright.sync_playwright() as started:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": 1440, "height": 1240}, reduced_motion="reduce")
        log_in(page, airflow)
        page.goto(f"{airflow.url}/dags/{dag}/runs/{run}/plugin/patching")
        frame = page.frame_locator("iframe")
        expect(frame.locator(".state")).to_have_text("Held", timeout=30000)
        expect(frame.locator("h1")).to_contain_text("Waits for a person to resume or abort it")
        expect(frame.locator(".target")).to_have_count(12)
        if os.environ.get("PATCHING_UPDATE_IMAGES"):
            page.screenshot(path=str(IMAGES / "held-wave-in-airflow.png"))
        frame.locator(".target").first.click()
        expect(frame.locator(".panel .step-name").first).to_have_text("download")
        frame.locator(".panel .close").click()
        page.goto(f"{airflow.url}/plugin/patching_overview")
        expect(page.frame_locator("iframe").locator(".rollout-line")).to_have_count(1, timeout=30000)
        browser.close()


def test_trigger_form_can_be_sent_as_it_opens(airflow: LocalAirflow, run_path: str) -> None:
    """U1: everything in the form may stay as it is; a field that Airflow takes as missing would block the button."""
    dag, _run = run_path.split("/")
    with playwright.sync_playwright() as started:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": 1440, "height": 1400})
        log_in(page, airflow)
        page.goto(f"{airflow.url}/dags/{dag}")
        page.get_by_role("button", name="Trigger").first.click()
        form = page.get_by_role("dialog")
        expect(form.get_by_text("Only these targets")).to_be_visible(timeout=30000)
        if os.environ.get("PATCHING_UPDATE_IMAGES"):
            page.screenshot(path=str(IMAGES / "trigger-form.png"))
        send = form.get_by_role("button", name="Trigger")
        expect(send).to_be_enabled(timeout=15000)
        send.click()
        expect(form).to_be_hidden(timeout=30000)
        browser.close()


def test_a_wave_is_promoted_in_the_tab_and_airflow_starts_its_run_as_the_person(
    airflow: LocalAirflow, run_path: str
) -> None:
    """S8: the cookie of Airflow's login carries the decision and the run; a viewer is shown no button."""
    dag, run = run_path.split("/")
    with playwright.sync_playwright() as started:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        for name in ("carol", "admin"):
            page = browser.new_context(reduced_motion="reduce").new_page()
            log_in(page, airflow, name)
            page.goto(f"{airflow.url}/dags/{dag}/runs/{run}/plugin/patching")
            frame = page.frame_locator("iframe")
            expect(frame.locator(".state")).to_have_text("Held", timeout=30000)
            expect(frame.locator(".head .act")).to_have_count(0 if name == "carol" else 4)
        frame.get_by_role("button", name="Promote wave 2").click()
        frame.get_by_label("Why?").fill("looked at by hand")
        frame.locator("dialog[open] button[type=submit]").click()
        expect(frame.get_by_role("status")).to_contain_text("is started", timeout=15000)
        expect(frame.locator(".state")).to_have_text("Waits", timeout=15000)
        browser.close()
    runs = httpx.get(f"{airflow.url}/api/v2/dags/{DAG}/dagRuns", headers=token(airflow, "admin"), timeout=20).json()
    asked = [
        (item["conf"]["reason"], item["triggering_user_name"])
        for item in runs["dag_runs"]
        if item["conf"].get("reason")
    ]
    assert asked == [("promote by admin: looked at by hand", "admin")]


def log_in(page: Any, airflow: LocalAirflow, name: str = "admin") -> None:
    page.goto(airflow.url)
    page.fill("input[name=username]", name)
    page.fill("input[name=password]", airflow.passwords[name])
    page.click("button[type=submit]")
    page.wait_for_url(lambda address: "login" not in address)
