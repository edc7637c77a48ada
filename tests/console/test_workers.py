from __future__ import annotations

import pytest

import fastq.console.pages.workers
from fastq.services.workers import Worker
from tests.console.conftest import Browser
from tests.http.world import World


async def hold(world: World, worker_id: str, jobs: int = 1, who: str = "client") -> list[str]:
    ids = [await world.submit(who=who, queue="mail") for _ in range(jobs)]
    await world.lease({"queues": ["mail"], "max": jobs, "worker_id": worker_id})
    return ids


async def test_the_worker_that_holds_a_job_longest_is_first(world: World, admin: Browser) -> None:
    await hold(world, "b")
    world.hands.ahead_us += 1_000_000
    (job_id,) = await hold(world, "a")
    text = await admin.page("/console/workers")
    assert text.index(">b<") < text.index(">a<")
    assert f'href="/console/jobs/{job_id}"' in text
    assert 'href="/console/queues/mail"' in text


async def test_what_is_stuck_is_marked(world: World, admin: Browser) -> None:
    await world.submit(queue="mail")
    await world.lease({"queues": ["mail"], "max": 1, "worker_id": "w", "lease_ms": 3_600_000})
    page = await admin.page("/console/workers")
    assert "long</span>" not in page and "silent</span>" not in page
    world.hands.ahead_us += 11 * 60_000_000
    page = await admin.page("/console/workers")
    assert "long</span>" in page and "silent</span>" in page


async def test_many_jobs_of_one_worker_are_counted_and_linked(world: World, admin: Browser) -> None:
    await hold(world, "w", 5)
    await hold(world, "other")
    page = await admin.page("/console/workers")
    assert "and 2 more" in page
    assert 'href="/console/jobs?state=RUNNING&amp;worker=w"' in page
    assert "more</a>" not in await admin.page("/console/workers?worker=w"), "the only one on the page shows all"


async def test_pages_of_workers(world: World, admin: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastq.console.pages.workers, "PAGE_WORKERS", 2)
    for n in range(5):
        await hold(world, f"w{n}")
    found = ""
    for number in (1, 2, 3):
        page = await admin.page(f"/console/workers?page={number}")
        assert page.count('data-name="Worker"') == (1 if number == 3 else 2)
        found += page
    assert all(f">w{n}<" in found for n in range(5))
    assert (await admin.get("/console/workers?page=9")).status == 200
    for bad in ("0", "-1", "x", "99999", "²"):
        assert (await admin.get(f"/console/workers?page={bad}")).status == 400


async def test_a_client_sees_only_workers_with_its_jobs(world: World, client: Browser) -> None:
    await world.make_key("other", "client")
    await hold(world, "theirs", who="other")
    await world.lease({"queues": ["mail"], "max": 1, "worker_id": "idle"})
    page = await client.page("/console/workers")
    assert "theirs" not in page and "idle" not in page
    assert "No worker holds a job of yours now" in page
    await hold(world, "mine")
    page = await client.page("/console/workers")
    assert ">mine<" in page and "theirs" not in page


def test_the_order_of_idle_workers() -> None:
    placed = fastq.console.pages.workers._placed
    idle = [placed(Worker(name, [], seen_us, ())) for name, seen_us in (("old", 1), ("new", 2))]
    assert [worker.worker_id for *_, worker in sorted(idle)] == ["new", "old"]


async def test_what_a_worker_says_about_itself(world: World, admin: Browser) -> None:
    body = {"worker_id": "w", "host": "web-3<b>", "version": "1.4.2"}
    assert (await world.call("worker", "POST", "/workers/heartbeat", body)).status == 200
    page = await admin.page("/console/workers")
    assert "on <bdi>web-3&lt;b&gt;</bdi>, version <bdi>1.4.2</bdi>" in page
