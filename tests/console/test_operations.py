from __future__ import annotations

import asyncio
import re

import pytest

import fastq.console.pages.operations
from fastq._core import ALL
from fastq.services.keys import Grants
from tests.console.conftest import Browser
from tests.http.wire import PATIENCE_S
from tests.http.world import World

STATE = re.compile(r"<b>(running|stopping|stopped|done|failed)</b>")


async def dead_jobs(world: World, count: int, queue: str = "mail", who: str = "client") -> list[str]:
    body = {"jobs": [{"payload": n, "queue": queue, "max_retries": 0} for n in range(count)]}
    reply = await world.call(who, "POST", "/jobs/batch", body)
    assert reply.status == 201, reply.body
    left = count
    while left:
        leased = (await world.lease({"queues": [queue], "max": min(left, 1000)}))["jobs"]
        acks = [{"job_id": job["job_id"], "lease_token": job["lease_token"], "result_error": "boom"} for job in leased]
        assert (await world.call("worker", "POST", "/jobs/ack", {"acks": acks})).status == 200
        left -= len(leased)
    ids: list[str] = reply.json["job_ids"]
    return ids


async def until(browser: Browser, path: str, state: str) -> str:
    """Reload the page of a change until it shows the state."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            page = await browser.page(path)
            found = STATE.search(page)
            if found is not None and found[1] == state:
                return page
            await asyncio.sleep(0)


def ready(world: World, queue: str = "mail") -> int:
    return world.engine.queue(ALL, queue).ready


async def test_a_list_offers_what_its_filter_allows(world: World, admin: Browser, client: Browser) -> None:
    await dead_jobs(world, 1)
    page = await client.page("/console/jobs?state=DEAD&queue=mail")
    assert 'href="/console/bulk?action=redrive&amp;state=DEAD&amp;queue=mail"' in page
    assert "action=cancel" not in page and 'value="cancel"' not in page
    assert "All that match" not in await client.page("/console/jobs"), "not all jobs of the server by a slip"
    await world.make_key("reader", "client", "client-owner", grants=Grants(scopes=("jobs:read",)))
    reader = await Browser(world).log_in("reader")
    page = await reader.page("/console/jobs?state=DEAD")
    assert "All that match" not in page and 'name="ids"' not in page


async def test_5000_dead_jobs_are_redriven_stopped_in_the_middle_and_continued(world: World, client: Browser) -> None:
    await dead_jobs(world, 5000)
    page = await client.page("/console/bulk?action=redrive&state=DEAD&queue=mail")
    assert "<h1>Redrive 5,000 jobs</h1>" in page and "Type <b>5000</b> to confirm" in page
    assert ready(world) == 0, "a count changes nothing"
    fields = {"action": "redrive", "state": "DEAD", "queue": "mail", "expected": "5000"}
    for confirm in ("", "500", "yes"):
        assert (await client.post("/console/operations", **fields, confirm=confirm)).status == 400
    assert ready(world) == 0
    reply = await client.post("/console/operations", **fields, confirm="5,000", pace="2000")
    path = reply.headers["location"]
    page = await client.follow(reply)
    assert 'hx-trigger="every 1s, catch-up"' in page and "of 5,000" in page
    async with asyncio.timeout(PATIENCE_S):
        while not ready(world):  # noqa: ASYNC110 -- there is no event for it
            await asyncio.sleep(0)
    assert (await client.post(f"{path}/stop")).status == 303
    page = await until(client, path, "stopped")
    assert "hx-trigger" not in page, "a page of what is over asks no more"
    changed = ready(world)
    assert 0 < changed < 5000
    assert f"<b>{changed:,}</b>" in page
    assert (await client.post(f"{path}/continue")).status == 303
    page = await until(client, path, "done")
    assert "<b>5,000</b>" in page and ready(world) == 5000
    (entry, *_) = (await world.call("admin", "GET", "/admin/audit")).json["entries"]
    assert (entry["action"], entry["details"]["changed"]) == ("jobs.redrive", 5000)
    assert path in await client.page("/console/operations")


async def test_chosen_jobs(world: World, client: Browser) -> None:
    ids = await dead_jobs(world, 3)
    page = await client.page("/console/jobs?state=DEAD")
    assert all(f'name="ids" value="{job_id}"' in page for job_id in ids)
    assert (await client.post("/console/bulk", action="delete")).status == 400
    reply = await client.post_all("/console/bulk", [("action", "delete"), *(("ids", one) for one in ids[:2])])
    page = reply.body.decode()
    assert "<h1>Delete 2 jobs</h1>" in page and "2 chosen jobs." in page
    found = re.findall(r'name="ids" value="([^"]+)"', page)
    assert found == ids[:2]
    form = [("action", "delete"), ("expected", "2"), ("confirm", "2"), *(("ids", one) for one in found)]
    path = (await client.post_all("/console/operations", form)).headers["location"]
    await until(client, path, "done")
    left = (await world.call("client", "GET", "/jobs")).json["jobs"]
    assert [job["job_id"] for job in left] == ids[2:]


async def test_a_purge(world: World, admin: Browser, client: Browser) -> None:
    for n in range(3):
        await world.submit(n, queue="mail")
    assert (await client.get("/console/queues/mail/purge")).status == 403
    page = await admin.page("/console/queues/mail/purge")
    assert "<h1>Delete 3 jobs</h1>" in page and "Waiting jobs of the queue" in page
    reply = await admin.post("/console/queues/mail/purge", expected="3", confirm="3")
    path = reply.headers["location"]
    await until(admin, path, "done")
    assert ready(world) == 0
    (entry, *_) = (await world.call("admin", "GET", "/admin/audit")).json["entries"]
    assert (entry["action"], entry["target"]) == ("queue.purge", "mail")
    assert (await admin.get("/console/queues/none/purge")).status == 404


async def test_nothing_matches(world: World, client: Browser) -> None:
    await world.submit(queue="mail")
    page = await client.page("/console/bulk?action=redrive&queue=mail")
    assert "Nothing will be changed" in page and "confirm" not in page
    for query in ("action=redrive", "action=nope&queue=mail", "action=delete&state=NOPE", "queue=mail"):
        assert (await client.get(f"/console/bulk?{query}")).status == 400, query


async def test_a_count_that_takes_long_says_at_least(
    world: World, client: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    await dead_jobs(world, 300)
    monkeypatch.setattr(fastq.console.pages.operations, "COUNT_US", 0)
    page = await client.page("/console/bulk?action=redrive&state=DEAD")
    assert "<h1>Redrive 100+ jobs</h1>" in page and "there are more than 100" in page


async def test_another_owner_neither_sees_nor_stops_a_change(world: World, client: Browser, admin: Browser) -> None:
    await dead_jobs(world, 30)
    fields = {"action": "redrive", "queue": "mail", "expected": "30", "confirm": "30", "pace": "1"}
    path = (await client.post("/console/operations", **fields)).headers["location"]
    stranger = await Browser(world).log_in("stranger")
    assert path not in await stranger.page("/console/operations")
    for act in ("", "/stop", "/continue"):
        reply = await (stranger.post(path + act) if act else stranger.get(path))
        assert reply.status == 404, act
    assert (await admin.post(f"{path}/stop")).status == 303, "an admin stops any"
    page = await until(admin, path, "stopped")
    assert "Continue" not in page
    assert (await admin.post(f"{path}/continue")).status == 403, "as an admin it would change the jobs of all owners"
    assert "Continue" in await client.page(path)


async def test_a_change_ends_with_its_key(world: World, client: Browser, admin: Browser) -> None:
    await dead_jobs(world, 30)
    fields = {"action": "redrive", "queue": "mail", "expected": "30", "confirm": "30", "pace": "20"}
    path = (await client.post("/console/operations", **fields)).headers["location"]
    assert (await world.call("admin", "DELETE", f"/keys/{world.key_ids['client']}")).status == 200
    page = await until(admin, path, "stopped")
    assert "the key ended" in page and ready(world) < 30


async def test_a_change_goes_on_after_the_log_out(world: World, client: Browser, admin: Browser) -> None:
    await dead_jobs(world, 30)
    fields = {"action": "redrive", "queue": "mail", "expected": "30", "confirm": "30", "pace": "100"}
    path = (await client.post("/console/operations", **fields)).headers["location"]
    assert (await client.post("/console/logout")).status == 303
    await until(admin, path, "done")
    assert ready(world) == 30


async def test_a_key_bound_to_queues_sees_only_its_own_changes(world: World, client: Browser) -> None:
    await dead_jobs(world, 30)
    fields = {"action": "redrive", "queue": "mail", "expected": "30", "confirm": "30", "pace": "1"}
    path = (await client.post("/console/operations", **fields)).headers["location"]
    grants = Grants(scopes=("jobs:read", "jobs:submit"), queues=frozenset({"other"}))
    await world.make_key("bound", "worker", "client-owner", grants=grants)
    bound = await Browser(world).log_in("bound")
    assert path not in await bound.page("/console/operations")
    assert (await bound.get(path)).status == (await bound.post(f"{path}/stop")).status == 404
    assert (await client.post(f"{path}/stop")).status == 303
