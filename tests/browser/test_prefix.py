"""The console below a path of a proxy, which the server itself does not know."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

from fastq.console.site import NAV
from tests.browser.conftest import visiting
from tests.browser.proxy import below
from tests.served import Served

pytestmark = pytest.mark.slow

PREFIX = "/tools/queue"
LINKS = """() => [...document.querySelectorAll("[href], [src], [action], [hx-get], [sse-connect]")].flatMap((one) =>
  ["href", "src", "action", "hx-get", "sse-connect"].map((name) => one.getAttribute(name)).filter(Boolean))"""


def test_every_link_stays_below_the_prefix(chromium: Browser, server: Served) -> None:
    server.submit(server.keys["client"], "x", queue="mail")
    with below(PREFIX, server.port) as port, visiting(chromium, server) as visitor:
        visitor.base = f"http://127.0.0.1:{port}{PREFIX}"
        page = visitor.log_in("admin")
        for path, name, _scope in NAV:
            visitor.go(path)
            expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
            links = [link for link in page.evaluate(LINKS) if not link.startswith("#")]
            assert [link for link in links if not link.startswith(PREFIX + "/")] == [], path
        visitor.go("/")
        expect(page.locator(".live")).to_have_text("live")
        server.submit(server.keys["client"], "x", queue="seen-live")
        expect(page.get_by_role("link", name="seen-live").first).to_be_visible()
        page.get_by_role("link", name="Jobs", exact=True).click()
        page.get_by_role("link", name="Submit a job").click()
        page.get_by_label("Payload").fill('"by form"')
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_text("Submitted.")).to_be_visible()
        assert urlsplit(page.url).path.startswith(PREFIX + "/console/jobs/")
        page.get_by_role("button", name="Log out").click()
        expect(page.locator("#key")).to_be_visible()
        assert urlsplit(page.url).path == PREFIX + "/console/login"
