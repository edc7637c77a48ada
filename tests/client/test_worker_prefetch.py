"""Prefetched jobs: when a worker leases them, and when it releases them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fastq import AsyncClient, Job, NewJob, Worker
from tests.client.served import WAIT_S, Place, Starts, nothing, watched

QUICK, OTHERS = 300, 20  # enough for the worker to learn that its handler is fast; what follows the slow job


class Slow:
    """A handler that is quick except for the payload "slow". `done` lists the payloads of its calls."""

    def __init__(self) -> None:
        self.began, self.go_on = asyncio.Event(), asyncio.Event()
        self.done: list[Any] = []

    async def __call__(self, job: Job[Any]) -> None:
        self.done.append(job.payload)
        if job.payload == "slow":
            self.began.set()
            await self.go_on.wait()


@pytest.fixture
def slow() -> Slow:
    return Slow()


async def submitted(aclient: AsyncClient, queue: str) -> list[str]:
    """The ids of the jobs after the slow one."""
    payloads = [*range(QUICK), "slow", *[f"other {i}" for i in range(OTHERS)]]
    stored = await aclient.submit_many([NewJob(payload=payload, queue=queue) for payload in payloads])
    return [one.job_id for one in stored[-OTHERS:]]


async def until_given_back(aclient: AsyncClient, job_ids: list[str]) -> None:
    async with asyncio.timeout(WAIT_S):
        for job_id in job_ids:
            while (await aclient.get(job_id)).state != "READY":  # noqa: ASYNC110 -- no event for it
                await asyncio.sleep(0.01)


@asynccontextmanager
async def behind(aclient: AsyncClient, queue: str, slow: Slow, at_work: Starts) -> AsyncIterator[list[str]]:
    """A worker whose only slot runs the slow job. Yields the ids of the jobs behind it."""
    ids = await submitted(aclient, queue)
    async with at_work(slow, concurrency=1):
        await asyncio.wait_for(slow.began.wait(), WAIT_S)
        yield ids
        slow.go_on.set()


@pytest.mark.slow
async def test_prefetched_jobs_behind_a_slow_job_are_released(
    place: Place, aclient: AsyncClient, queue: str, at_work: Starts, slow: Slow
) -> None:
    async with behind(aclient, queue, slow, at_work) as ids:
        await until_given_back(aclient, ids)
        async with at_work(lambda job: "of another"):
            for job_id in ids:
                assert (await aclient.wait_for_completion(job_id, WAIT_S)).result == "of another"
    assert slow.done == [*range(QUICK), "slow"]
    assert {job["attempts"] for job in place.jobs(queue=queue)} == {1}
    assert [attempt["outcome"] for attempt in place.attempts(ids[0])] == ["ok", "released"]


async def test_fast_handlers_prefetch_jobs(place: Place, aclient: AsyncClient, queue: str) -> None:
    asked = 0

    async def count(path: str) -> None:
        nonlocal asked
        asked += path == "/jobs/lease"

    await aclient.submit_many([NewJob(payload=i, queue=queue) for i in range(2000)])
    done: list[int] = []
    worker = Worker(lambda job: done.append(job.payload), queues=[queue], concurrency=1,
                    transport=watched(place, count, nothing))  # fmt: skip
    await worker.run_async(burst=True)
    assert done == list(range(2000))  # and in order
    assert asked < 200


async def test_slow_handlers_do_not_prefetch(place: Place, aclient: AsyncClient, queue: str, at_work: Starts) -> None:
    go_on, begun = threading.Event(), threading.Semaphore(0)

    def stuck(job: Job[int]) -> None:
        begun.release()
        go_on.wait(WAIT_S)

    await aclient.submit_many([NewJob(payload=i, queue=queue) for i in range(9)])
    async with at_work(stuck, concurrency=3):
        for _ in range(3):
            await asyncio.to_thread(begun.acquire, timeout=WAIT_S)
        assert [job["state"] for job in place.jobs(queue=queue)].count("RUNNING") == 3
        go_on.set()


async def test_a_stop_releases_prefetched_jobs(place: Place, aclient: AsyncClient, queue: str, slow: Slow) -> None:
    ids = await submitted(aclient, queue)
    worker = Worker(slow, url=place.url, key=place.keys["worker"], queues=[queue], concurrency=1)
    running = asyncio.create_task(worker.run_async())
    await asyncio.wait_for(slow.began.wait(), WAIT_S)
    worker.stop()
    slow.go_on.set()
    await asyncio.wait_for(running, WAIT_S)
    assert slow.done == [*range(QUICK), "slow"]
    left = [job for job in place.jobs(queue=queue) if job["job_id"] in ids]
    assert [(job["state"], job["attempts"]) for job in left] == [("READY", 0)] * OTHERS


@pytest.mark.parametrize("force", [False, True], ids=["cancelled", "lost"])
async def test_a_cancelled_prefetched_job_does_not_start(
    place: Place, aclient: AsyncClient, queue: str, slow: Slow, force: bool
) -> None:
    """A heartbeat tells the worker of the cancel before the job has a slot."""
    cancelled, heard = asyncio.Event(), asyncio.Event()

    async def before(path: str) -> None:
        if path == "/workers/heartbeat" and slow.began.is_set() and not cancelled.is_set():
            assert (await aclient.get(ids[0])).state == "RUNNING"
            await aclient.cancel(ids[0], force=force)
            cancelled.set()

    async def after(path: str) -> None:
        if path == "/workers/heartbeat" and cancelled.is_set():
            asyncio.get_running_loop().call_soon(heard.set)

    ids = await submitted(aclient, queue)
    worker = Worker(slow, queues=[queue], concurrency=1, transport=watched(place, before, after), lease_ms=1000)
    running = asyncio.create_task(worker.run_async())
    await asyncio.wait_for(heard.wait(), WAIT_S)
    slow.go_on.set()
    assert (await aclient.wait_for_completion(ids[0], WAIT_S)).state == "CANCELLED"
    await aclient.wait_for_completion(ids[-1], WAIT_S)
    worker.stop()
    await asyncio.wait_for(running, WAIT_S)
    assert "other 0" not in slow.done and "other 1" in slow.done


async def test_wait_cut_before_and_after_a_cut(aclient: AsyncClient, queue: str, at_work: Starts) -> None:
    told: list[bool] = []
    began, loop = asyncio.Event(), asyncio.get_running_loop()

    def waits(job: Job[str]) -> None:
        told.append(job.wait_cut(0))
        loop.call_soon_threadsafe(began.set)
        told.append(job.wait_cut(WAIT_S))
        told.append(job.wait_cut(0))

    async with at_work(waits):
        job_id = (await aclient.submit("x", queue=queue)).job_id
        await began.wait()
        await aclient.cancel(job_id)
        await aclient.wait_for_completion(job_id, WAIT_S)
    assert told == [False, True, True]
