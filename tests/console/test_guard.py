from __future__ import annotations

import re

import pytest

from fastq.console.guard import HEADERS
from fastq.console.site import Site
from fastq.http.routes import OPEN, may
from tests.console.conftest import FORM, Browser
from tests.http.world import World

HOSTILE = "<script>alert(1)</script>\"'&\u202egnp.exe{{7*7}}{% raw %}"


def site_of(world: World) -> Site:
    return world.app.pages  # type: ignore[return-value]


async def test_every_page_has_the_headers(world: World, admin: Browser) -> None:
    for path in (
        "/console/login",
        "/console/jobs",
        "/console/jobs/no-such",
        "/console/nothing",
        "/console/static/x.css",
    ):
        reply = await admin.get(path)
        if path != "/console/nothing":
            assert {name: reply.headers.get(name.lower()) for name in HEADERS} == HEADERS, path
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


async def test_a_path_that_is_no_page_is_answered_by_a_page(world: World, admin: Browser) -> None:
    for path in ("/console/nothing", "/console/jobs/x/y/z", "/console/"):
        reply = await admin.get(path)
        assert (reply.status, b"There is nothing here" in reply.body) == (404, True), path
        assert {name: reply.headers.get(name.lower()) for name in HEADERS} == HEADERS, path
    assert (await world.call("admin", "GET", "/nothing")).json["code"] == "path_not_found"


async def test_a_line_to_copy_has_no_host_that_a_shell_would_run(world: World, admin: Browser) -> None:
    job_id = await world.submit()
    page = (await admin.get(f"/console/jobs/{job_id}", ("X-Forwarded-Host", "x;rm$(a)"))).body.decode()
    assert "rm$(a)" not in page and "http://HOST/jobs/" in page


async def test_every_page_needs_its_scope(world: World) -> None:
    """The scope matrix of the console: each page with a key of each kind, and without one."""
    pages = [page for page in site_of(world).pages if page.scope != OPEN]
    assert len(pages) > 10
    for page in pages:
        path = re.sub(r"{\w+}", "no-such", page.path)
        nobody = Browser(world)
        reply = await world.call(None, page.method, path, b"", (FORM,))
        assert reply.status == 401, page
    for name in ("client", "worker", "admin"):
        browser = await Browser(world).log_in(name)
        who = await world.app.auth.principal(f"Bearer {world.secrets[name]}")
        for page in pages:
            if page.path == "/console/logout":
                continue
            path = re.sub(r"{\w+}", "no-such", page.path)
            reply = await (browser.get(path) if page.method == "GET" else browser.post(path))
            assert (reply.status == 403 and b"This key may not" in reply.body) is not may(who, page.scope), (name, page)
    assert nobody.cookie == ""


async def test_assets_are_kept_by_browsers_only_under_their_digest(world: World, admin: Browser) -> None:
    page = await admin.page("/console/jobs")
    links = re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page)
    assert len(links) == 5
    for link in links:
        assert "immutable" in (await world.call(None, "GET", link)).headers["cache-control"]
        assert (await world.call(None, "GET", link.partition("?")[0])).headers["cache-control"] == "no-store"
    assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', page), "nothing comes from another host"


async def test_every_link_has_the_prefix_of_the_proxy(world: World, admin: Browser) -> None:
    job_id = await world.submit(queue="mail")
    body = {"cron": "0 3 * * *", "job": {"payload": 1}}
    assert (await world.call("admin", "PUT", "/schedules/nightly", body)).status == 200
    await world.lease({"queues": ["mail"], "max": 1, "worker_id": "w"})
    for path in (
        "/console/jobs?queue=mail",
        f"/console/jobs/{job_id}",
        "/console/submit",
        "/console/nothing",
        "/console/workers",
        "/console/schedules",
        "/console/schedules/nightly",
        "/console/server",
        "/console/operations",
        "/console/bulk?action=cancel&queue=mail",
        "/console/bulk?action=redrive&queue=mail",
        "/console/queues/mail/purge",
    ):
        text = (await admin.get(path, ("X-Forwarded-Prefix", "/a/b"))).body.decode()
        links = re.findall(r'(?:src|href|action|hx-get|hx-post|sse-connect)="([^"#]*)"', text)
        assert [link for link in links if not link.startswith("/a/b/")] == [], path
    for bad in ("https://evil.example", "//evil", '/a"b', "a", "/" + "x/" * 50):
        text = (await admin.get("/console/jobs", ("X-Forwarded-Prefix", bad))).body.decode()
        assert 'href="/console/jobs"' in text


@pytest.mark.parametrize("field", ["payload", "tag", "error", "worker"])
async def test_text_of_others_is_text(world: World, admin: Browser, field: str) -> None:
    fields = {"queue": "q", "group": "g"}
    tags = [HOSTILE.replace("\u202e", "")[:60]] if field == "tag" else []
    job_id = await world.submit(HOSTILE, tags=tags, **fields)
    lease = await world.lease({"queues": [fields["queue"]], "max": 1, "worker_id": HOSTILE.replace("\u202e", "")})
    body = {"lease_token": lease["jobs"][0]["lease_token"], "result_error": HOSTILE, "outcome": "discard"}
    assert (await world.call("worker", "POST", f"/jobs/{job_id}/ack", body)).status == 200
    for path in ("/console/jobs", f"/console/jobs/{job_id}", f"/console/submit?again={job_id}"):
        text = await admin.page(path)
        assert "<script>alert" not in text
        assert "\u202e" not in text
