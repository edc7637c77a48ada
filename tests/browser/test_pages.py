"""Every page in every form: sound for a screen reader, no wider than the window; its picture shows something."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from fastq.console.site import NAV
from tests.browser.conftest import PHONE, Visitor, visiting
from tests.browser.demo import fill, remember
from tests.browser.pictures import FORMS, KEPT, keep, pages, taken
from tests.served import Served

pytestmark = pytest.mark.slow

PICTURE_BYTES_MAX = 120_000
ALL_PICTURES_BYTES_MAX = 4_000_000
CHECKED = {("wide", "light"), ("phone", "dark")}  # both forms and both schemes: a whole check takes a second
COLORS_MIN = 4  # of a picture that is not blank


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, dict[str, str]]]:
    """A server in use, and ids of what it has."""
    data = tmp_path_factory.mktemp("used") / "data"
    remember(data)
    with Served(data) as served:
        yield served, fill(served)


@pytest.mark.parametrize(("window", "scheme"), FORMS)
def test_every_page_of_a_server_in_use(
    chromium: Browser, used: tuple[Served, dict[str, str]], tmp_path: Path, window: str, scheme: str
) -> None:
    names = []
    for name, visitor in taken(chromium, *used, window, scheme):
        if (window, scheme) in CHECKED:
            visitor.check()
        else:
            visitor.check_width()
        path = keep(visitor, tmp_path, name)
        names.append(name)
        assert path.stat().st_size < PICTURE_BYTES_MAX, name
        with Image.open(path) as image:
            assert image.width >= 375, name
            assert len(image.convert("RGB").getcolors(1 << 24) or ()) >= COLORS_MIN, name
    assert len(names) == len(set(names)) == 1 + len(pages(used[1]))


@pytest.mark.parametrize("window_size", [None, PHONE])
def test_every_page_of_an_empty_server_says_what_comes_next(
    chromium: Browser, server: Served, window_size: dict[str, int] | None
) -> None:
    options = {"viewport": window_size} if window_size else {}
    with visiting(chromium, server, **options) as visitor:
        page = visitor.log_in("admin")
        for path, name, _scope in NAV:
            visitor.go(path)
            expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
            visitor.check_width() if window_size else visitor.check()
        for path in ("/", "/console/jobs", "/console/queues", "/console/schedules", "/console/workers"):
            visitor.go(path)
            expect(page.locator(".empty pre")).to_contain_text("fastq ")
        for path in ("/console/failures", "/console/operations"):
            visitor.go(path)
            expect(page.locator(".empty")).to_be_visible()


def test_the_pictures_of_the_documentation_are_there(used: tuple[Served, dict[str, str]]) -> None:
    ids = dict.fromkeys([*used[1], "operation"], "")
    wanted = {f"{name}-{window}-{scheme}.png" for name in ("login", *pages(ids)) for window, scheme in FORMS}
    assert {path.name for path in KEPT.iterdir()} == wanted
    assert sum(path.stat().st_size for path in KEPT.iterdir()) < ALL_PICTURES_BYTES_MAX


def test_a_page_without_scripts_is_whole(chromium: Browser, used: tuple[Served, dict[str, str]]) -> None:
    server, _ = used
    with visiting(chromium, server, java_script_enabled=False, viewport=PHONE) as visitor:
        page = visitor.log_in("admin")
        for path, name, _scope in NAV:
            visitor.go(path)
            expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
        visitor.go("/")
        expect(page.get_by_role("link", name="mail").first).to_be_visible()
        expect(page.get_by_role("button", name="Pause updates")).to_be_hidden()
        visitor.go("/console/queues/mail")
        page.get_by_label("Reason").fill("by hand")
        page.get_by_role("button", name="Pause the queue").click()
        expect(page.get_by_text("by hand").first).to_be_visible()
        page.get_by_role("button", name="Resume").click()
        expect(page.get_by_role("button", name="Pause the queue")).to_be_visible()


def focus(visitor: Visitor, text: str) -> None:
    """Press Tab until the element with this text has the focus."""
    page = visitor.page
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent").strip() == text:
            return
    raise AssertionError(f"no way to {text!r} by Tab")


def test_a_dead_job_is_redriven_by_keyboard_alone(chromium: Browser, used: tuple[Served, dict[str, str]]) -> None:
    server, ids = used
    with visiting(chromium, server) as visitor:
        page = visitor.go("/")
        expect(page.locator("#key")).to_be_focused()
        page.keyboard.type(server.keys["admin"])
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        focus(visitor, "Failures")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Failures")).to_be_visible()
        focus(visitor, "the last one")
        page.keyboard.press("Enter")
        page.wait_for_url("**/console/jobs/*")
        focus(visitor, "Redrive")
        page.keyboard.press("Enter")
        expect(page.get_by_text("Redriven: the job is ready with 0 attempts.")).to_be_visible()
    assert ids
