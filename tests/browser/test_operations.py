"""Many jobs at once, workers, schedules and the server, in a browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import PHONE, Visitor, visiting
from tests.served import Served

pytestmark = pytest.mark.slow

DEAD = 5_000


def make_dead(server: Served, queue: str, count: int) -> None:
    keys = server.keys
    jobs = [{"payload": n, "queue": queue, "max_retries": 0} for n in range(count)]
    assert server.call(keys["client"], "POST", "/jobs/batch", {"jobs": jobs})[0] == 201
    for _ in range(0, count, 1_000):
        _, leased = server.call(keys["worker"], "POST", "/jobs/lease", {"queues": [queue], "max": 1_000})
        acks = [
            {"job_id": job["job_id"], "lease_token": job["lease_token"], "result_error": "boom"}
            for job in leased["jobs"]
        ]
        assert server.call(keys["worker"], "POST", "/jobs/ack", {"acks": acks})[0] == 200


def test_5000_dead_jobs_are_redriven_with_progress_and_stopped(server: Served, visitor: Visitor) -> None:
    make_dead(server, "bulk", DEAD)
    page = visitor.log_in("client")
    visitor.go("/console/jobs?state=DEAD&queue=bulk")
    page.get_by_role("link", name="Redrive").click()
    expect(page.get_by_role("heading", name="Redrive 5,000 jobs")).to_be_visible()
    visitor.check()
    expect(page.get_by_label("to confirm")).to_be_focused()
    page.keyboard.type("5000")
    page.keyboard.press("Tab")
    page.keyboard.type("1000")
    page.keyboard.press("Enter")
    changed = page.locator(".figure b").first
    expect(page.locator(".figure b", has_text="running")).to_be_visible()
    page.evaluate("window.isSamePage = true")
    expect(changed).not_to_have_text("0")
    first = changed.inner_text()
    expect(changed).not_to_have_text(first)
    assert page.evaluate("window.isSamePage"), "the progress comes without a reload"
    visitor.check()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".figure b", has_text="stopped")).to_be_visible()
    stopped_at = int(changed.inner_text().replace(",", ""))
    assert 0 < stopped_at < DEAD
    _, queue = server.call(server.keys["admin"], "GET", "/queues/bulk")
    assert queue["finished"]["DEAD"] == DEAD - stopped_at
    page.get_by_label("at most so many a second").fill("")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator(".figure b", has_text="done")).to_be_visible()
    expect(changed).to_have_text("5,000")


def test_ticked_jobs_are_deleted(server: Served, visitor: Visitor) -> None:
    for n in range(3):
        server.submit(server.keys["client"], n, queue="ticked")
    page = visitor.log_in("client")
    visitor.go("/console/jobs?queue=ticked")
    page.get_by_label("all on this page").check()
    page.get_by_role("checkbox", name="Choose the job").first.uncheck()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Delete 2 jobs")).to_be_visible()
    page.get_by_label("to confirm").fill("2")
    page.get_by_role("button", name="Delete 2").click()
    expect(page.locator(".figure b", has_text="done")).to_be_visible()
    visitor.go("/console/jobs?queue=ticked")
    expect(page.get_by_role("checkbox", name="Choose the job")).to_have_count(1)


def test_a_worker_that_leases_appears_but_rows_stay_under_the_pointer(server: Served, visitor: Visitor) -> None:
    keys = server.keys
    server.submit(keys["client"], 1, queue="held")
    server.call(keys["worker"], "POST", "/jobs/lease", {"queues": ["held"], "worker_id": "first:1"})
    page = visitor.log_in("admin")
    visitor.go("/console/workers")
    expect(page.get_by_role("link", name="first:1")).to_be_visible()
    page.get_by_role("link", name="first:1").hover()
    server.submit(keys["client"], 1, queue="held")
    server.call(keys["worker"], "POST", "/jobs/lease", {"queues": ["held"], "worker_id": "second:2"})
    expect(page.locator("#workers[data-behind]")).to_be_visible()
    expect(page.get_by_role("link", name="second:2")).to_have_count(0)
    page.get_by_role("heading", name="Workers").hover()
    expect(page.get_by_role("link", name="second:2")).to_be_visible()


def test_a_schedule_by_form(visitor: Visitor) -> None:
    page = visitor.log_in("admin")
    visitor.go("/console/schedules")
    page.get_by_label("Name").fill("nightly")
    page.get_by_label("Minute, hour").fill("30 2 * * MON-FRI")
    page.get_by_label("Time zone").fill("Europe/Berlin")
    page.get_by_label("Job, as the body").fill('{"payload": {"report": "daily"}, "queue": "reports"}')
    visitor.check()
    page.get_by_role("button", name="Create the schedule").click()
    expect(page.get_by_text("at 02:30 from Monday to Friday, Europe/Berlin")).to_be_visible()
    page.get_by_role("button", name="Run now").click()
    expect(page.get_by_text("Submitted the job")).to_be_visible()
    visitor.check()


def test_a_backup_is_downloaded(visitor: Visitor) -> None:
    page = visitor.log_in("admin")
    visitor.go("/console/server")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download a backup").click()
    assert download.value.suggested_filename.endswith(".tar")
    assert download.value.path().stat().st_size > 0


def test_long_names_fit_on_a_phone(chromium: Browser, server: Served) -> None:
    server.submit(server.keys["client"], "x", queue="phone")
    server.call(server.keys["worker"], "POST", "/jobs/lease", {"queues": ["phone"], "worker_id": "phone:" + "9" * 60})
    body = {"cron": "*/7 3 * * MON#1", "timezone": "America/Argentina/ComodRivadavia", "job": {"payload": 1}}
    server.call(server.keys["admin"], "PUT", "/schedules/" + "n" * 60, body)
    with visiting(chromium, server, viewport=PHONE) as visitor:
        visitor.log_in("admin")
        for path in (
            "/console/workers",
            "/console/schedules",
            "/console/schedules/" + "n" * 60,
            "/console/server",
            "/console/operations",
            "/console/bulk?action=cancel&queue=phone",
            "/console/queues/phone/purge",
            "/console/jobs?queue=phone",
        ):
            page = visitor.go(path)
            expect(page.get_by_role("heading", level=1)).not_to_have_text("Something is wrong with the server")
            visitor.check()
