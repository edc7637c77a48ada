"""Pictures of every page, light and dark, wide and on a phone: `python -m tests.browser.pictures [DIRECTORY]`."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser

from tests.browser.conftest import PHONE, WIDE, Visitor, launched, visiting
from tests.browser.demo import fill, remember
from tests.served import ROOT, Served

KEPT = ROOT / "docs" / "console"
WINDOWS = {"wide": WIDE, "phone": PHONE}
FORMS = [(window, scheme) for window in WINDOWS for scheme in ("light", "dark")]
COLORS = 128  # the commonest: those of the style sheet stay exact
HEIGHT_MAX = 1600  # pixels of a page that a picture shows


def pages(ids: dict[str, str]) -> dict[str, str]:
    """What the pictures show: the page's path by the picture's name."""
    return {
        "overview": "/",
        "jobs": "/console/jobs",
        "job-dead": f"/console/jobs/{ids['dead']}",
        "job-running": f"/console/jobs/{ids['running']}",
        "job-paused": f"/console/jobs/{ids['paused']}",
        "job-done": f"/console/jobs/{ids['done']}",
        "submit": "/console/submit?queue=mail",
        "failures": "/console/failures",
        "queues": "/console/queues",
        "queue": "/console/queues/mail",
        "queue-paused": "/console/queues/billing",
        "bulk": "/console/bulk?action=redrive&state=DEAD&queue=webhooks",
        "operations": "/console/operations",
        "operation": f"/console/operations/{ids['operation']}",
        "workers": "/console/workers",
        "schedules": "/console/schedules",
        "schedule": "/console/schedules/nightly-report",
        "keys": "/console/keys",
        "audit": "/console/audit",
        "server": "/console/server",
        "error": "/console/jobs/no-such-job",
    }


def fill_by_hand(visitor: Visitor, ids: dict[str, str]) -> None:
    """Do what only the console does: begin a bulk change."""
    page = visitor.go("/console/bulk?action=redrive&state=DEAD&queue=webhooks")
    page.locator("[name=confirm]").fill("23")
    page.locator("[name=pace]").fill("1")
    page.locator("main form button").click()
    page.wait_for_url("**/console/operations/*")
    ids["operation"] = page.url.rpartition("/")[2]


def taken(
    chromium: Browser, server: Served, ids: dict[str, str], window: str, scheme: str
) -> Iterator[tuple[str, Visitor]]:
    """Go to each page in one form. The page is shown while the caller has its name."""
    with visiting(chromium, server, color_scheme=scheme, viewport=WINDOWS[window]) as visitor:
        visitor.go("/console/login")
        yield f"login-{window}-{scheme}", visitor
        visitor.log_in("admin")
        if "operation" not in ids:
            fill_by_hand(visitor, ids)
        for name, path in pages(ids).items():
            visitor.go(path)
            yield f"{name}-{window}-{scheme}", visitor


def keep(visitor: Visitor, directory: Path, name: str) -> Path:
    """Write a picture of the page with few colors."""
    shown = visitor.page.screenshot(full_page=True, animations="disabled", caret="hide")
    image = Image.open(io.BytesIO(shown)).convert("RGB")
    image = image.crop((0, 0, image.width, min(image.height, HEIGHT_MAX)))
    path = directory / f"{name}.png"
    counted = sorted(image.getcolors(image.width * image.height) or (), reverse=True)[:COLORS]
    palette = Image.new("P", (1, 1))
    palette.putpalette([level for _, color in counted for level in color])
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, launched() as chromium:
        data = Path(scratch) / "data"
        remember(data)
        with Served(data) as server:
            ids = fill(server)
            for window, scheme in FORMS:
                for name, visitor in taken(chromium, server, ids, window, scheme):
                    print(keep(visitor, directory, name))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else KEPT)
