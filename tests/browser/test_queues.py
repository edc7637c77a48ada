"""A queue in a browser: paused with a reason, limited, and what its jobs say of it."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visitor
from tests.served import Served

pytestmark = pytest.mark.slow


def test_a_queue_is_paused_and_its_jobs_say_why(server: Served, visitor: Visitor) -> None:
    job_id = server.submit(server.keys["client"], "x", queue="mail")
    page = visitor.log_in("admin")
    visitor.go("/console/queues")
    page.get_by_role("link", name="mail").click()
    page.get_by_label("Reason").fill("the provider is down, ask Ann")
    page.get_by_role("button", name="Pause the queue").click()
    expect(
        page.get_by_text("Paused: the provider is down, ask Ann")
        .or_(page.get_by_text("paused: the provider is down, ask Ann"))
        .first
    ).to_be_visible()
    visitor.check()
    visitor.go(f"/console/jobs/{job_id}")
    expect(page.get_by_text("The queue mail is paused: the provider is down, ask Ann.")).to_be_visible()
    visitor.go("/console/queues/mail")
    page.get_by_role("button", name="Resume").click()
    visitor.go(f"/console/jobs/{job_id}")
    expect(page.get_by_text("No worker asks for jobs of the queue mail")).to_be_visible()


def test_a_limit_is_edited_and_holds(server: Served, visitor: Visitor) -> None:
    keys = server.keys
    waiting = [server.submit(keys["client"], n, queue="limited") for n in range(2)]
    page = visitor.log_in("admin")
    visitor.go("/console/queues/limited")
    page.get_by_label("Running jobs at most").fill("1")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Running jobs at most")).to_have_value("1")
    _, settings = server.call(keys["admin"], "GET", "/queues/limited")
    assert settings["settings"]["concurrency"] == 1
    _, leased = server.call(keys["worker"], "POST", "/jobs/lease", {"queues": ["limited"], "max": 2})
    assert len(leased["jobs"]) == 1
    other = next(job_id for job_id in waiting if job_id != leased["jobs"][0]["job_id"])
    visitor.go(f"/console/jobs/{other}")
    expect(page.get_by_text("The queue limited has as many running jobs as it may have.")).to_be_visible()


def test_a_client_reads_a_queue_and_cannot_change_it(server: Served, visitor: Visitor) -> None:
    server.submit(server.keys["client"], "x", queue="readable")
    page = visitor.log_in("client")
    visitor.go("/console/queues/readable")
    expect(page.get_by_role("heading", name="readable")).to_be_visible()
    for name in ("Save", "Pause the queue", "Resume"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    expect(page.get_by_role("link", name="Delete the waiting jobs")).to_have_count(0)
