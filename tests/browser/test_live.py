"""Pages that are open while something happens."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Visitor, visiting
from tests.served import Served

pytestmark = pytest.mark.slow

TRIES = 5
STREAM_FAILED = "[object Event]"  # what htmx says on the console
UPDATE_MS = 1_000
# Resolves with the time in ms from the call until the figure with this text shows another number.
WAIT_FOR_CHANGE = """(label) => new Promise((resolve) => {
  const shown = () => [...document.querySelectorAll(".figure")].find((f) => f.textContent.includes(label))
    .querySelector("b").textContent;
  const before = shown(), from = performance.now();
  const observer = new MutationObserver(() => {
    if (shown() !== before) { observer.disconnect(); resolve(performance.now() - from); }
  });
  observer.observe(document.querySelector("main"), {childList: true, subtree: true, characterData: true});
})"""


def overview(visitor: Visitor, kind: str = "admin") -> Page:
    """Open the first screen, and wait until the stream of updates has brought one."""
    page = visitor.log_in(kind)
    with page.expect_response(lambda answer: "part=live" in answer.url):
        visitor.go("/")
    return page


def figure(page: Page, label: str) -> str:
    return page.locator(".figure", has_text=label).locator("b").inner_text()


def test_a_submit_is_seen_within_a_second(server: Served, visitor: Visitor) -> None:
    page = overview(visitor)
    seen_ms = []
    for _ in range(TRIES):
        page.evaluate(f"void (window.seen = ({WAIT_FOR_CHANGE})('runnable'))")  # evaluate would wait for it
        server.submit(server.keys["client"], "live", queue="live")
        seen_ms.append(page.evaluate("window.seen"))
    assert statistics.median(seen_ms) < UPDATE_MS, seen_ms


def test_rows_stay_under_the_pointer_and_catch_up_after_it(server: Served, visitor: Visitor) -> None:
    server.submit(server.keys["client"], 0, queue="first")
    page = overview(visitor)
    page.get_by_role("link", name="first").first.hover()
    before = page.locator("#overview").inner_text()
    server.submit(server.keys["client"], 0, queue="second")
    expect(page.locator("#overview[data-behind]")).to_be_visible()
    assert page.locator("#overview").inner_text() == before
    page.get_by_role("heading", name="Overview").hover()
    expect(page.get_by_role("link", name="second").first).to_be_visible()


def test_updates_are_paused_and_go_on(server: Served, visitor: Visitor) -> None:
    page = overview(visitor)
    page.get_by_role("button", name="Pause updates").click()
    expect(page.locator(".live")).to_have_text("paused")
    before = page.locator("#overview").inner_text()
    server.submit(server.keys["client"], 0, queue="third")
    expect(page.locator("#overview[data-behind]")).to_be_attached()
    assert page.locator("#overview").inner_text() == before
    page.get_by_role("button", name="Go on updating").click()
    expect(page.get_by_role("link", name="third").first).to_be_visible()


def test_a_page_says_that_its_session_ended_with_the_key(chromium: Browser, server: Served) -> None:
    admin = server.keys["admin"]
    body = {"name": "guest", "owner_id": "guest", "type": "client"}
    status, made = server.call(admin, "POST", "/admin/keys", body)
    assert status == 201
    with visiting(chromium, server) as visitor:
        page = visitor.go("/")
        page.fill("#key", made["key"])
        with page.expect_response(lambda answer: "part=live" in answer.url):
            page.get_by_role("button", name="Log in").click()
        assert server.call(admin, "DELETE", f"/keys/{made['key_id']}")[0] in (200, 204)
        expect(page.get_by_text("The session has ended")).to_be_visible()
        visitor.complaints = [said for said in visitor.complaints if said != STREAM_FAILED]
        page.fill("#key", server.keys["client"])
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def test_a_page_says_when_the_server_is_gone_and_goes_on_after_its_start(chromium: Browser, tmp_path: Path) -> None:
    with Served(tmp_path / "data") as own:
        keys, port = own.keys, own.port
        with visiting(chromium, own) as visitor:
            page = overview(visitor)
            assert own.stop() == 0
            expect(page.locator(".live")).to_have_text("no connection")
            expect(
                page.get_by_role("heading", name="Queues, the worst first").or_(page.get_by_text("No jobs yet"))
            ).to_be_visible()
            with Served(tmp_path / "data", PORT=str(port)):
                expect(page.get_by_text("The session has ended")).to_be_visible()
                page.fill("#key", keys["admin"])
                page.get_by_role("button", name="Log in").click()
                expect(page.locator(".live")).to_have_text("live")
            visitor.complaints.clear()  # a browser says on the console that nobody answers
