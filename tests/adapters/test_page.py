"""The rollout page in a real browser (V2, V3): what a person sees at 12 and at 500 targets, and when things go wrong.

``PATCHING_UPDATE_IMAGES=1`` also writes docs/images/*.png anew.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI

from patching.change import Outcome
from patching.ledger.entry import CONTROL, EntryKind, NewEntry
from patching.ledger.store import SqlLedger
from patching.rollout.states import RolloutState
from patching_airflow.ui.security import Access
from rollout_page.serving import guard_for, mounted, serving
from rollout_page.stories import RUN, START, Moment, Story, at_work, held, open_story_ledger, undone

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
IMAGES = Path(__file__).parents[2] / "docs/images"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="no chromium: apt-get install chromium"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@dataclass
class Site:
    """A served ledger, and a browser's pages on it; what the browser complained about is kept."""

    browser: Any
    ledger: SqlLedger
    clock: Moment
    url: str
    readable: set[str] = field(default_factory=lambda: {"alice"})
    writers: set[str] = field(default_factory=lambda: {"alice"})
    paused: bool = False
    runs: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str, *, scheme: str = "light", height: int = 900) -> Any:
        context = self.browser.new_context(
            viewport={"width": 1280, "height": height},
            color_scheme=scheme,
            timezone_id="Europe/Berlin",
            reduced_motion="reduce",
        )
        context.add_cookies([{"name": "user", "value": "alice", "url": self.url}])
        page = context.new_page()
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(f"{self.url}/patching/page/{path}")
        return page

    def rollout(self, story: Story, **more: Any) -> Any:
        page = self.open(f"rollout/{story.rollout}", **more)
        expect(page.locator(".target").first).to_be_visible()
        return page


@pytest.fixture
def site(browser: Any, tmp_path: Path) -> Iterator[Site]:
    ledger, clock = open_story_ledger(tmp_path)
    made = Site(browser, ledger, clock, "")

    def allowed(user: str, _dag: str | None, access: Access) -> bool:
        return user in (made.writers if access in (Access.CONTROL, Access.EVERYTHING) else made.readable)

    with serving(with_airflow(mounted(ledger, guard_for(allowed)), made)) as url:
        made.url = url
        yield made
        for context in browser.contexts:
            context.close()
    ledger.close()


def with_airflow(app: FastAPI, site: Site) -> FastAPI:
    """Answer what the page asks of Airflow's own API to start a run."""

    @app.get("/api/v2/dags/{dag_id}")
    def dag(dag_id: str) -> dict[str, Any]:
        return {"dag_id": dag_id, "is_paused": site.paused}

    @app.post("/api/v2/dags/{dag_id}/dagRuns")
    def run(dag_id: str, asked: dict[str, Any]) -> dict[str, Any]:
        site.runs.append((dag_id, asked["conf"]))
        return {"dag_run_id": f"manual__{len(site.runs)}"}

    return app


@pytest.fixture
def picture(tmp_path: Path) -> Any:
    """Write a picture where it can be looked at; into docs/images where that was asked for."""

    def take(page: Any, name: str, *, whole: bool = True) -> None:
        folder = IMAGES if os.environ.get("PATCHING_UPDATE_IMAGES") else tmp_path / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        # The only thing on the page that differs from run to run is when it was looked at.
        page.evaluate("document.querySelector('.updated').textContent = 'live'")
        page.screenshot(path=str(folder / f"{name}.png"), full_page=whole)

    return take


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_held_wave_of_12_says_what_it_waits_for(site: Site, picture: Any, scheme: str) -> None:
    story = held(site.ledger, site.clock, 12)
    page = site.rollout(story, scheme=scheme)
    expect(page.locator(".state")).to_have_text("Held")
    expect(page.locator("h1")).to_contain_text("Waits for a person to resume or abort it: wave 2")
    expect(page.locator(".wave-state")).to_have_text(["promoted", "held", "ahead"])
    expect(page.locator(".target .target-name")).to_have_count(12)
    expect(page.locator(".plot .line.canary path")).to_have_count(1)
    expect(page.locator(".plot .line.control path")).to_have_count(1)
    expect(page.locator(".plot .line.tolerated path")).to_have_count(1)
    expect(page.locator(".plot .marks .flag")).to_have_count(4)
    picture(page, "held-wave" if scheme == "light" else "held-wave-dark")
    assert site.complaints == []


def test_gauge_is_drawn_with_its_levels_also_below_zero(site: Site, picture: Any) -> None:
    story = held(site.ledger, site.clock, 12)
    now = site.clock().timestamp()
    before, after = ([now + 60 * look for look in looks] for looks in (range(-20, -10), range(-9, 1)))
    kept = {
        "kind": "gauge",
        "before": {"ends": before, "targets": {"a": {"values": [4.0] * 10}}},
        "canary": {"ends": after, "targets": {"a": {"values": [80.0] * 10}}},
        "control_before": {"ends": before, "targets": {"c": {"values": [-20.0] * 10}}},
        "control": {"ends": after, "targets": {"c": {"values": [-20.0] * 10}}},
    }
    data = site.ledger.store_document("measured", {"series": [], "changes": [], "looks": kept})
    body = {"wave": 2, "check": "errors", "data": data}
    site.ledger.append(NewEntry(chain=story.rollout, kind=EntryKind.MEASURED, key="gauge", body=body))
    page = site.rollout(story)
    expect(page.locator(".plot .label")).to_have_text(["canary 80", "control -20"])
    expect(page.locator(".plot .axis text")).to_have_text(["-20", "40", "100"])
    expect(page.locator(".plot")).to_have_attribute("aria-label", re.compile("level of wave 2 .* canary from 4 to 80"))
    picture(page, "gauge")
    assert site.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_500_targets_are_compact_cells_each_with_a_symbol_and_a_name(site: Site, picture: Any, scheme: str) -> None:
    page = site.rollout(at_work(site.ledger, site.clock, 500), scheme=scheme)
    cells = page.locator(".compact .target")
    expect(cells).to_have_count(500)
    expect(page.locator(".compact .target svg.symbol")).to_have_count(500)
    nameless = page.locator(".compact .target:not([aria-label])")
    expect(nameless).to_have_count(0)
    expect(page.locator(".plot .marks .span")).to_have_count(1)
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow == 0
    picture(page, "many-targets" if scheme == "light" else "many-targets-dark")
    assert site.complaints == []


def test_filters_by_state_wave_zone_and_text_narrow_the_500(site: Site) -> None:
    page = site.rollout(at_work(site.ledger, site.clock, 500))
    page.get_by_role("button", name="1 failed", exact=True).click()
    expect(page.locator(".target .target-name")).to_have_text(["web-279"])
    expect(page.locator(".shown")).to_have_text("1 of 500 targets shown")
    page.get_by_role("button", name="1 failed", exact=True).click()
    page.get_by_label("Wave", exact=True).select_option("1")
    expect(page.locator(".target")).to_have_count(3)
    page.get_by_label("Zone").select_option("az-b")
    expect(page.locator(".target .target-name")).to_have_text(["web-002"])
    page.get_by_label("Wave", exact=True).select_option("")
    page.get_by_label("Zone").select_option("")
    page.get_by_label("Find a target or a word").fill("az-b in use")
    expect(page.locator(".target")).to_have_count(3)
    page.get_by_label("Find a target or a word").fill("nothing like it")
    expect(page.get_by_text("No target matches this filter.")).to_be_visible()


def test_wave_button_filters_and_shows_that_waves_verdict(site: Site) -> None:
    page = site.rollout(held(site.ledger, site.clock, 12))
    page.locator(".wave").first.click()
    expect(page.locator(".target")).to_have_count(3)
    expect(page.locator(".judgement h2")).to_contain_text("Wave 1verdict: promote")
    page.locator(".wave").first.click()
    expect(page.locator(".target")).to_have_count(12)


def test_keyboard_alone_walks_the_cells_opens_the_log_and_comes_back(site: Site) -> None:
    page = site.rollout(at_work(site.ledger, site.clock, 500))
    page.locator(".target").first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    expect(page.locator(".tip")).to_contain_text("web-002")
    stops = page.locator(".target[tabindex='0']")
    expect(stops).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.locator(".panel h2")).to_have_text("web-002")
    expect(page.locator(".panel .log li").last).to_contain_text("outcome: applied")
    page.keyboard.press("Escape")
    expect(page.locator(".panel")).to_be_hidden()
    expect(page.locator(".target[data-key='web-002']")).to_be_focused()


def test_step_log_shows_output_as_text(site: Site, picture: Any) -> None:
    story = undone(site.ledger, site.clock, 12)
    page = site.rollout(story)
    page.locator(".target").first.click()
    expect(page.locator(".panel .step-name")).to_have_text(["download", "install", "restart-services", "downgrade"])
    page.locator(".panel summary", has_text="install").click()
    expect(page.locator(".panel details[open] pre")).to_contain_text("Setting up libssl3:amd64")
    picture(page, "step-log", whole=False)
    assert site.complaints == []


def test_markup_from_a_host_stays_text(site: Site) -> None:
    story = held(site.ledger, site.clock, 12)
    hostile = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    story.begin("web-09")
    story.end("web-09", Outcome.FAILED, hostile)
    page = site.rollout(story)
    expect(page.locator(".target[data-key='web-09'] .note")).to_have_text(hostile)
    assert "owned" not in page.title()
    assert page.locator("main img").count() == 0


def test_page_follows_the_ledger_without_a_reload(site: Site) -> None:
    story = Story(site.ledger, site.clock, size=12).opened().approved().begin_wave(1)
    page = site.rollout(story)
    expect(page.locator(".state")).to_have_text("Running")
    story.begin("web-01", detail="installs 3 packages")
    expect(page.locator(".target[data-key='web-01'] .target-state")).to_have_text("at work", timeout=8000)
    story.end("web-01", Outcome.APPLIED, "3 packages installed")
    expect(page.locator(".target[data-key='web-01'] .target-state")).to_have_text("applied", timeout=8000)
    assert site.complaints == []


def test_unreachable_server_makes_the_page_say_that_it_is_out_of_date(site: Site) -> None:
    page = site.rollout(held(site.ledger, site.clock, 12))
    page.context.set_offline(True)
    expect(page.locator(".banner")).to_contain_text("The server cannot be reached", timeout=10000)
    expect(page.locator(".banner")).to_contain_text("may be out of date")
    expect(page.locator(".updated")).to_contain_text("out of date since")
    expect(page.locator(".target")).to_have_count(12)
    page.context.set_offline(False)
    expect(page.locator(".banner")).to_be_hidden(timeout=20000)
    expect(page.locator(".updated")).to_contain_text("live")


def test_user_without_access_sees_the_refusal_and_no_data(site: Site) -> None:
    story = held(site.ledger, site.clock, 12)
    site.readable.clear()
    page = site.open(f"rollout/{story.rollout}")
    expect(page.locator(".banner")).to_contain_text("You may not read the DAG of this rollout")
    assert page.locator(".target").count() == 0


def test_run_tab_finds_its_rollout_by_the_encoded_run_id(site: Site) -> None:
    """Airflow fills the run id percent-encoded into the tab's address, in a sandboxed frame."""
    story = held(site.ledger, site.clock, 12)
    encoded = RUN.replace(":", "%3A").replace("+", "%2B")
    address = quote(f"/patching/page/run/{story.dag_id}/{encoded}")
    page = site.open("overview")
    page.goto(f"{site.url}/frame?address={address}")
    frame = page.frame_locator("iframe")
    expect(frame.locator(".state")).to_have_text("Held")
    expect(frame.locator(".target")).to_have_count(12)
    assert site.complaints == []


def test_run_that_has_no_rollout_yet_says_so(site: Site) -> None:
    page = site.open("run/patch__web/manual__1")
    expect(page.locator("h1")).to_contain_text("This run has no rollout yet")


def test_overview_lists_open_rollouts_first_and_leads_to_one(site: Site, picture: Any) -> None:
    undone(site.ledger, site.clock, 12)
    site.clock.now = START
    story = held(site.ledger, site.clock, 12)
    page = site.open("overview", height=600)
    expect(page.locator(".rollout-line .target-state")).to_have_text(["Held", "Undone"])
    picture(page, "overview")
    page.locator(".rollout-line").first.click()
    expect(page.locator("h1")).to_contain_text("Waits for a person")
    assert story.rollout in page.url
    page.get_by_role("link", name="All rollouts").click()
    expect(page.locator(".rollout-line")).to_have_count(2)
    assert site.complaints == []


# What a person may do (S8)


def confirm(page: Any, reason: str) -> None:
    page.get_by_label("Why?").fill(reason)
    page.locator("dialog[open] button[type=submit]").click()


def test_held_wave_is_promoted_by_keyboard_alone_and_its_run_is_started(site: Site) -> None:
    story = held(site.ledger, site.clock, 12)
    page = site.rollout(story)
    expect(page.locator(".head .act")).to_have_text(["Promote wave 2", "Undo", "Abort", "Stop everything"])
    page.get_by_role("button", name="Promote wave 2").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Promote wave 2")
    expect(dialog).to_contain_text("counts as promoted in your name")
    expect(page.get_by_label("Why?")).to_be_focused()
    page.keyboard.type("traffic was low at night")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(page.locator(".state")).to_have_text("Waits", timeout=5000)
    expect(page.get_by_role("status")).to_contain_text("Run manual__1 is started")
    assert site.runs == [(story.dag_id, {"reason": "promote by alice: traffic was low at night"})]
    verdict = site.ledger.entries(story.rollout, kinds=[EntryKind.VERDICT])[-1]
    assert (verdict.actor, verdict.body["verdict"]) == ("alice", "promote")
    assert site.complaints == []


def test_nothing_is_done_without_a_reason_nor_after_escape(site: Site) -> None:
    story = held(site.ledger, site.clock, 12)
    page, before = site.rollout(story), site.ledger.heads()
    button = page.get_by_role("button", name="Abort", exact=True)
    button.click()
    page.locator("dialog[open] button[type=submit]").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.get_by_label("Why?").fill("   ")
    page.locator("dialog[open] button[type=submit]").click()
    expect(page.get_by_role("alert").filter(has_text="A reason is needed")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(button).to_be_focused()
    assert site.ledger.heads() == before


def test_buttons_are_only_for_who_may(site: Site) -> None:
    story = held(site.ledger, site.clock, 12)
    site.writers.clear()
    page = site.rollout(story)
    expect(page.locator(".state")).to_have_text("Held")
    assert page.locator(".act:visible").count() == 0
    page.locator(".target[data-key='web-09']").click()
    expect(page.locator(".panel h2")).to_have_text("web-09")
    assert page.locator(".panel .act").count() == 0
    page = site.open("overview")
    expect(page.locator(".rollout-line")).to_have_count(1)
    assert page.locator(".act:visible").count() == 0


def test_what_another_person_decided_first_is_said_in_the_dialog(site: Site) -> None:
    story = held(site.ledger, site.clock, 12)
    page = site.rollout(story)
    page.get_by_role("button", name="Promote wave 2").click()
    story.state(RolloutState.ABORTED, "aborted by bob")
    confirm(page, "looks good")
    expect(page.locator("dialog[open] .error")).to_contain_text("Not done: rollout")
    expect(page.locator("dialog[open] .error")).to_contain_text('"aborted"')
    assert site.runs == []


def test_a_paused_dag_is_said_and_the_decision_stands(site: Site) -> None:
    story = held(site.ledger, site.clock, 12)
    site.paused = True
    page = site.rollout(story)
    page.get_by_role("button", name="Undo", exact=True).click()
    confirm(page, "customers complain")
    expect(page.get_by_role("status")).to_contain_text("no run was started: patch__web-os-security is paused")
    expect(page.locator(".state")).to_have_text("Undoing", timeout=5000)
    assert site.runs == []


def test_a_target_is_skipped_and_another_retried_from_its_panel(site: Site) -> None:
    story = held(site.ledger, site.clock, 12)
    page = site.rollout(story)
    page.locator(".target[data-key='web-09']").click()
    expect(page.locator(".panel-body p").nth(1)).to_have_text("waits for a person: its rollout is held")
    page.locator(".panel").get_by_role("button", name="Skip").click()
    expect(page.get_by_role("dialog")).to_contain_text("web-09 is left out of this rollout for good")
    confirm(page, "it is sold tomorrow")
    expect(page.locator(".target[data-key='web-09'] .target-state")).to_have_text("skipped", timeout=5000)
    expect(page.locator(".panel").get_by_role("button", name="Skip")).to_have_count(0)
    page.locator(".panel .close").click()
    page.get_by_role("button", name="Promote wave 2").click()
    confirm(page, "known good")
    expect(page.locator(".state")).to_have_text("Waits", timeout=5000)
    page.locator(".target[data-key='web-08']").click()
    page.locator(".panel").get_by_role("button", name="Try again").click()
    confirm(page, "its switch is back")
    expect(page.locator(".target[data-key='web-08'] .target-state")).to_have_text("to go", timeout=5000)
    assert [conf["reason"] for _, conf in site.runs] == [
        "promote by alice: known good",
        "retry by alice: its switch is back",
    ]
    assert site.complaints == []


def test_hold_and_abort_now_of_a_rollout_at_work(site: Site) -> None:
    story = at_work(site.ledger, site.clock, 30)
    page = site.rollout(story)
    page.get_by_role("button", name="Hold", exact=True).click()
    confirm(page, "disk alarms")
    expect(page.locator(".state")).to_have_text("Held", timeout=5000)
    page.get_by_role("button", name="Abort now").click()
    expect(page.get_by_role("dialog")).to_contain_text("reading and downloading is cancelled within seconds")
    confirm(page, "wrong fleet")
    expect(page.locator(".state")).to_have_text("Aborted", timeout=5000)
    expect(page.get_by_role("status")).to_contain_text("had begun and ends")
    assert len(site.ledger.entries(story.rollout, kinds=[EntryKind.ABORTED_NOW])) == 1


def test_everything_is_stopped_and_allowed_again_from_the_overview(site: Site) -> None:
    held(site.ledger, site.clock, 12)
    page = site.open("overview")
    page.get_by_role("button", name="Stop everything").click()
    confirm(page, "datacentre on fire")
    expect(page.locator(".stop")).to_contain_text("alice: datacentre on fire", timeout=5000)
    page.get_by_role("button", name="Allow everything again").click()
    confirm(page, "the fire is out")
    expect(page.locator(".stop")).to_have_count(0, timeout=5000)
    assert site.ledger.stopped() is None


def test_a_locked_policy_is_shown_and_released_with_a_reason(site: Site, picture: Any) -> None:
    """F10: the incident is the first thing that the page says, and its release the first thing it offers."""
    story = held(site.ledger, site.clock, 12)
    name = f"undo-{story.rollout}"
    body = {"id": name, "rollout": story.rollout, "policy": "web-os-security", "cause": "the undo failed on web-04"}
    site.ledger.append(NewEntry(chain=CONTROL, kind=EntryKind.INCIDENT_OPENED, key="incident", body=body))
    page = site.rollout(story)
    expect(page.locator(".stop")).to_contain_text("The policy is locked. The undo failed on web-04")
    expect(page.locator("h1")).to_contain_text("Waits for a person to release an incident")
    expect(page.locator(".head .act").first).to_have_text("Release incident")
    assert page.get_by_role("button", name="Promote wave 2").count() == 0
    picture(page, "locked-policy", whole=False)
    page.get_by_role("button", name="Release incident").click()
    confirm(page, "web-04 downgraded by hand")
    expect(page.locator(".stop")).to_have_count(0, timeout=5000)
    expect(page.get_by_role("button", name="Promote wave 2")).to_be_visible()


def test_the_dialog_works_in_the_frame_of_airflows_run_page(site: Site) -> None:
    story = held(site.ledger, site.clock, 12)
    address = quote(f"/patching/page/run/{story.dag_id}/{RUN}")
    page = site.open("overview")
    page.goto(f"{site.url}/frame?address={address}")
    frame = page.frame_locator("iframe")
    frame.get_by_role("button", name="Abort", exact=True).click()
    frame.get_by_label("Why?").fill("enough")
    frame.locator("dialog[open] button[type=submit]").click()
    expect(frame.locator(".state")).to_have_text("Aborted", timeout=5000)
    assert site.complaints == []


CONTRAST = """elements => elements.map(element => {
  const rgb = text => {
    const found = text.match(/[\\d.]+/g).map(Number);
    return text.startsWith("color(") ? found.slice(0, 3) : found.slice(0, 3).map(value => value / 255);
  };
  const light = parts => {
    const [r, g, b] = parts.map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const style = getComputedStyle(element);
  const [one, other] = [light(rgb(style.color)), light(rgb(style.backgroundColor))].sort((a, b) => b - a);
  return (one + 0.05) / (other + 0.05);
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_buttons_and_dialog_are_readable(site: Site, picture: Any, scheme: str) -> None:
    """WCAG 2.2 AA: 4.5 to 1 for text."""
    page = site.rollout(held(site.ledger, site.clock, 12), scheme=scheme)
    page.get_by_role("button", name="Promote wave 2").click()
    found = page.locator(".act:visible, .plain:visible, .acting textarea").evaluate_all(CONTRAST)
    assert len(found) >= 7
    assert min(found) >= 4.5
    page.get_by_label("Why?").fill("the canary had too little traffic at night; error share is flat")
    picture(page, "decide" if scheme == "light" else "decide-dark", whole=False)
