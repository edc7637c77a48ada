"""A real Chromium in front of a real server. Anything that the browser complains of fails the test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.served import Served

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE_MS = 20_000
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 375, "height": 740}
REFUSED = "Failed to load resource: the server responded with a status of"  # the page itself, which the test looks at
SERIOUS = {"serious", "critical"}

expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def launched() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("browser") / "data") as served:
        yield served


class Visitor:
    """A browser's window on a server."""

    def __init__(self, context: BrowserContext, server: Served) -> None:
        self.server = server
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.complaints: list[str] = []
        self.page.on("console", lambda said: self._complain(said.type, said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)
        self.base = f"http://127.0.0.1:{server.port}"

    def _complain(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not text.startswith(REFUSED):
            self.complaints.append(text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.base, "data:", "about:")):
            self.complaints.append(f"asked another host: {request.url}")

    def go(self, path: str) -> Page:
        self.page.goto(self.base + path)
        return self.page

    def log_in(self, kind: str) -> Page:
        self.go("/console/jobs")
        self.page.fill("#key", self.server.keys[kind])
        self.page.get_by_role("button", name="Log in").click()
        expect(self.page.get_by_role("button", name="Log out")).to_be_visible()
        return self.page

    def check(self) -> None:
        """Nothing serious is wrong for a screen reader or a keyboard, and nothing is wider than the page."""
        self.check_width()
        answer = Axe().run(self.page, options={"resultTypes": ["violations"]}).response
        found = [one for one in answer["violations"] if one["impact"] in SERIOUS]
        places = [(one["id"], node["html"][:200]) for one in found for node in one["nodes"][:3]]
        assert places == [], self.page.url

    def check_width(self) -> None:
        wide = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{self.page.url} is {wide} px wider than the window"


@contextmanager
def visiting(chromium: Browser, server: Served, **options: Any) -> Iterator[Visitor]:
    """A window of its own. `options` are Playwright's of a context."""
    context = chromium.new_context(**{"viewport": WIDE, **options})
    visitor = Visitor(context, server)
    try:
        yield visitor
        assert visitor.complaints == []
    finally:
        context.close()


@pytest.fixture
def visitor(chromium: Browser, server: Served) -> Iterator[Visitor]:
    with visiting(chromium, server) as made:
        yield made
