from __future__ import annotations

from playwright.sync_api import Browser, expect

from tests.browser.conftest import PHONE, Visitor, visiting
from tests.served import Served

BIG = '{"n": 9223372036854775808, "f": 0.10, "html": "<script>alert(1)</script>"}'


def test_submit_find_and_read_a_job(visitor: Visitor) -> None:
    page = visitor.log_in("admin")
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_role("link", name="Submit a job").click()
    page.get_by_label("Payload").fill(BIG)
    page.get_by_label("Queue").fill("mail")
    page.get_by_label("Retries").fill("1")
    visitor.check()
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("Submitted.")).to_be_visible()
    expect(page.locator("#payload")).to_contain_text('"n": 9223372036854775808')
    expect(page.locator("#payload")).to_contain_text('"f": 0.10')
    visitor.check()
    job_id = page.url.rpartition("/")[2]
    page.goto(f"{visitor.base}/console/jobs")
    page.get_by_label("Payload contains").fill("9223372036854775808")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("link", name=job_id)).to_be_visible()
    visitor.check()
    page.get_by_role("link", name=job_id).click()
    page.get_by_text("Delete the job").first.click()
    page.locator("#confirm").fill("delete")
    page.get_by_role("button", name="Delete the job").click()
    expect(page.get_by_text(f"The job {job_id} is deleted.")).to_be_visible()


def test_a_failing_job_is_found_by_its_error_and_redriven(server: Served, visitor: Visitor) -> None:
    keys = server.keys
    job_id = server.submit(keys["client"], {"to": "ann"}, queue="failing", max_retries=0)
    _, lease = server.call(keys["worker"], "POST", "/jobs/lease", {"queues": ["failing"], "worker_id": "w7"})
    error = {"lease_token": lease["lease_token"], "result_error": "SMTP 451 try later\nTraceback", "error_code": "smtp"}
    assert server.call(keys["worker"], "POST", f"/jobs/{job_id}/ack", error)[0] == 200
    page = visitor.log_in("admin")
    visitor.go("/console/jobs")
    page.get_by_label("Error contains").fill("451 try")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name=job_id).click()
    expect(page.get_by_text("SMTP 451 try later").first).to_be_visible()
    visitor.check()
    page.get_by_role("button", name="Redrive").click()
    expect(page.get_by_text("Redriven: the job is ready with 0 attempts.")).to_be_visible()


def test_a_client_sees_only_its_own_jobs(server: Served, visitor: Visitor) -> None:
    own = server.submit(server.keys["client"], "own", queue="private")
    other = server.submit(server.keys["admin"], "other", queue="private")
    page = visitor.log_in("client")
    visitor.go("/console/jobs?queue=private")
    expect(page.get_by_role("link", name=own)).to_be_visible()
    expect(page.get_by_role("link", name=other)).to_have_count(0)
    visitor.go(f"/console/jobs/{other}")
    expect(page.get_by_role("heading", name="There is nothing here")).to_be_visible()
    for hidden in ("Audit", "Server", "Schedules"):
        expect(page.get_by_role("link", name=hidden)).to_have_count(0)


def test_by_keyboard_alone(visitor: Visitor) -> None:
    visitor.go("/console/jobs")
    page = visitor.page
    expect(page.locator("#key")).to_be_focused()
    page.keyboard.type(visitor.server.keys["admin"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()


def test_without_scripts_the_pages_are_read_the_same(chromium: Browser, server: Served) -> None:
    job_id = server.submit(server.keys["client"], "plain", queue="plain")
    with visiting(chromium, server, java_script_enabled=False, viewport=PHONE) as visitor:
        page = visitor.log_in("client")
        visitor.go("/console/jobs?queue=plain")
        expect(page.get_by_role("link", name=job_id)).to_be_visible()
        page.get_by_role("link", name=job_id).click()
        expect(page.locator("#payload")).to_have_text('"plain"')
