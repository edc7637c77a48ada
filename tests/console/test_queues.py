from __future__ import annotations

import re
from html import unescape

import pytest

from tests.console.conftest import Browser
from tests.http.world import World

EXACT = {
    "rate_limit": {"n": 7, "per_ms": 333},
    "retention": {"acked_ms": 90_001, "dead_ms": 7_200_000, "max": 12},
    "backoff": {"base_ms": 10, "factor": 3, "cap_ms": 999},
    "concurrency": 4,
    "fair": True,
    "lease_ms": 4_000,
}


def fields_of(page: str) -> dict[str, str]:
    """What a browser sends if nothing is touched."""
    form = page.partition("/settings")[2].partition("</form>")[0]
    inputs = re.findall(r"<input ([^>]*)>", form)
    sent: dict[str, str] = {}
    for one in inputs:
        values = dict(re.findall(r'(\w+)="([^"]*)"', one))
        if values.get("type") != "checkbox" or "checked" in one:
            sent[values["name"]] = unescape(values.get("value", ""))
    return sent


async def test_a_saved_form_changes_only_what_was_touched(world: World, admin: Browser) -> None:
    assert (await world.call("admin", "PUT", "/queues/mail", EXACT)).status == 200
    before = (await world.call("admin", "GET", "/queues/mail")).json["settings"]
    sent = fields_of(await admin.page("/console/queues/mail"))
    assert (await admin.post("/console/queues/mail/settings", **sent)).status == 303
    assert (await world.call("admin", "GET", "/queues/mail")).json["settings"] == before
    await admin.post("/console/queues/mail/settings", **sent | {"concurrency": "9"})
    assert (await world.call("admin", "GET", "/queues/mail")).json["settings"] == before | {"concurrency": 9}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("concurrency", "0", "concurrency"), ("concurrency", "x", "whole number"), ("rate_n", "5", "needs both"),
     ("max_depth", "99999999999999999999", "max_depth"), ("kept_max", "-1", "retention.max")],
)  # fmt: skip
async def test_a_bad_limit_is_named(world: World, admin: Browser, field: str, value: str, said: str) -> None:
    await world.submit(queue="mail")
    reply = await admin.post("/console/queues/mail/settings", **{field: value})
    assert reply.status == 400
    assert said in reply.body.decode()


async def test_pause_with_a_reason_and_resume(world: World, admin: Browser) -> None:
    job_id = await world.submit(queue="mail")
    page = await admin.follow(await admin.post("/console/queues/mail/pause", reason="<b>provider down</b>"))
    assert "paused: &lt;b&gt;provider down&lt;/b&gt;" in page
    assert "provider down" in await admin.page(f"/console/jobs/{job_id}"), "the job says why it waits"
    assert ">Changes<" in page and "admin-owner" in page, "the audit entry stands beside it"
    page = await admin.follow(await admin.post("/console/queues/mail/resume"))
    assert "provider down" not in page


async def test_a_key_that_may_not_manage_sees_no_forms(world: World, client: Browser) -> None:
    await world.submit(queue="mail")
    page = await client.page("/console/queues/mail")
    assert "/settings" not in page and "/pause" not in page and "/purge" not in page
    assert (await client.get("/console/queues/other")).status == 404


async def test_queues_go_on_by_pages(world: World, admin: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastq.console.pages.queues.PAGE_QUEUES", 2)
    for name in ("a", "b", "c"):
        await world.submit(queue=name)
    page = await admin.page("/console/queues")
    assert "/console/queues/b" in page and "/console/queues/c" not in page
    assert "/console/queues/c" in await admin.page("/console/queues?after=b")
