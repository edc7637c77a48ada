"""The console of a server in trouble: on a full disk, and while it stops."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from fastq.console.site import NAV
from tests.browser.conftest import visiting
from tests.faults.test_full_disk import DISK_BYTES, Client, mounted, served

pytestmark = pytest.mark.slow


def test_on_a_full_disk_the_pages_answer_and_jobs_are_deleted(chromium: Browser, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", DISK_BYTES) as disk, served(disk) as server:
        status, _ = Client(server).submit_until_refused()
        assert status == 507
        with visiting(chromium, server) as visitor:
            page = visitor.log_in("admin")
            for path, name, _scope in NAV:
                visitor.go(path)
                expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
            visitor.go("/")
            expect(page.get_by_text("The disk is full")).to_be_visible()
            visitor.check()
            visitor.go("/console/submit")
            page.get_by_label("Payload").fill(json.dumps("x" * 1_000_000))
            page.get_by_role("button", name="Submit").click()
            expect(page.get_by_role("heading", name="The disk is full").or_(page.get_by_role("alert"))).to_be_visible()
            visitor.go("/console/jobs")
            page.locator("tbody a.id").first.click()
            page.get_by_text("Delete the job").first.click()
            page.locator("#confirm").fill("delete")
            page.get_by_role("button", name="Delete the job").click()
            expect(page.get_by_text("is deleted.")).to_be_visible()
