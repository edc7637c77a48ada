"""The leases and the stop of a worker, against a real server."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from fastq import (
    AsyncClient,
    Job,
    LeaseGone,
    NewJob,
    Success,
    Unauthenticated,
    Worker,
)
from fastq.client import slots
from tests.client.served import WAIT_S, Place, Starts, nothing, outcome, watched

pytestmark = pytest.mark.slow

# --- leases -----------------------------------------------------------------------------------------------------------


async def test_leases_are_extended_while_a_handler_runs(aclient: AsyncClient, queue: str, at_work: Starts) -> None:
    async def slow(job: Job[str]) -> str:
        job.progress(50, "half")
        await asyncio.sleep(2.5)
        return "done"

    async with at_work(slow, lease_ms=1000):
        done = await outcome(aclient, queue)
    assert (done.attempts, done.result) == (1, "done")


@pytest.mark.parametrize("is_async", [True, False])
async def test_cancel_reaches_the_handler(aclient: AsyncClient, queue: str, at_work: Starts, is_async: bool) -> None:
    began, told = asyncio.Event(), []
    loop = asyncio.get_running_loop()

    async def waits(job: Job[str]) -> None:
        began.set()
        try:
            await asyncio.sleep(WAIT_S)
        finally:
            told.append(job.cut)

    def waits_in_a_thread(job: Job[str]) -> None:
        loop.call_soon_threadsafe(began.set)
        assert job.wait_cut(WAIT_S)
        told.append(job.cut)
        job.check()

    async with at_work(waits if is_async else waits_in_a_thread):
        job_id = (await aclient.submit("x", queue=queue)).job_id
        await began.wait()
        assert await aclient.cancel(job_id) == "RUNNING"
        done = await aclient.wait_for_completion(job_id, WAIT_S)
    assert (done.state, told) == ("CANCELLED", ["cancelled"])


async def test_a_lost_lease_reaches_the_handler(aclient: AsyncClient, queue: str, at_work: Starts) -> None:
    began, ended = asyncio.Event(), asyncio.Event()
    cuts = []

    async def waits(job: Job[str]) -> None:
        began.set()
        try:
            await asyncio.sleep(WAIT_S)
        finally:
            cuts.append(job.cut)
            with pytest.raises(LeaseGone, match="lost"):
                job.check()
            ended.set()

    async with at_work(waits):
        job_id = (await aclient.submit("x", queue=queue)).job_id
        await began.wait()
        await aclient.cancel(job_id, force=True)
        await asyncio.wait_for(ended.wait(), WAIT_S)
    assert cuts == ["lost"]


async def test_a_time_limit_in_a_thread_keeps_its_slot(aclient: AsyncClient, queue: str, at_work: Starts) -> None:
    go_on = threading.Event()

    def stuck(job: Job[str]) -> str:
        if job.payload == "stuck":
            go_on.wait(WAIT_S)
        return "done"

    async with at_work(stuck, concurrency=1, time_limit_s=0.1):
        dead = await outcome(aclient, queue, "stuck", max_retries=0)
        assert (dead.state, dead.error) == ("DEAD", "the attempt exceeded its time limit of 0.1 s")
        job_id = (await aclient.submit("next", queue=queue)).job_id
        assert (await aclient.get(job_id)).state == "READY"
        go_on.set()
        assert (await aclient.wait_for_completion(job_id, WAIT_S)).result == "done"


async def test_concurrency_is_never_exceeded(place: Place, aclient: AsyncClient, queue: str, at_work: Starts) -> None:
    running, most = 0, 0

    async def count(job: Job[int]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    stored = await aclient.submit_many([NewJob(payload=i, queue=queue) for i in range(200)])
    async with at_work(count, concurrency=7):
        for one in stored:
            await aclient.wait_for_completion(one.job_id, WAIT_S)
    assert most == 7
    assert {job["attempts"] for job in place.jobs(queue=queue)} == {1}


# --- stop -------------------------------------------------------------------------------------------------------------


async def test_a_stop_lets_handlers_finish(aclient: AsyncClient, queue: str, at_work: Starts) -> None:
    began = asyncio.Event()

    async def slow(job: Job[str]) -> str:
        began.set()
        await asyncio.sleep(0.3)
        return "done"

    async with at_work(slow):
        job_id = (await aclient.submit("x", queue=queue)).job_id
        await began.wait()
    assert (await aclient.get(job_id)).result == "done"


@pytest.mark.parametrize("how", ["later", "now", "thread"])
async def test_a_stop_releases_unfinished_jobs(aclient: AsyncClient, queue: str, at_work: Starts, how: str) -> None:
    began, loop, go_on = asyncio.Event(), asyncio.get_running_loop(), threading.Event()

    async def forever(job: Job[str]) -> None:
        began.set()
        await asyncio.sleep(WAIT_S)

    def forever_in_a_thread(job: Job[str]) -> None:
        loop.call_soon_threadsafe(began.set)
        go_on.wait(WAIT_S)

    handler = forever_in_a_thread if how == "thread" else forever
    async with at_work(handler, stop_s=WAIT_S if how == "now" else 0.05) as worker:
        job_id = (await aclient.submit("x", queue=queue)).job_id
        await began.wait()
        if how == "now":
            worker.stop()
    go_on.set()
    job = await aclient.get(job_id)
    assert (job.state, job.attempts, job.outcome) == ("READY", 0, "released")


async def test_a_stop_during_a_lease_request_loses_no_job(place: Place, aclient: AsyncClient, queue: str) -> None:
    """Stop at many points around a lease answer. Each job is READY again, or done."""
    for i in range(12):
        worker = Worker(lambda job: "r", url=place.url, key=place.keys["worker"], queues=[queue], concurrency=3)
        running = asyncio.create_task(worker.run_async())
        await asyncio.sleep(0.02 + 0.001 * i)
        submitting = asyncio.create_task(aclient.submit_many([NewJob(payload=i, queue=queue)] * 3))
        await asyncio.sleep(0.0005 * i)
        worker.stop()
        await asyncio.gather(running, submitting)
    jobs = place.jobs(queue=queue)
    assert len(jobs) == 36
    assert {(job["state"], job["attempts"]) for job in jobs} <= {("READY", 0), ("ACKED", 1)}


async def test_a_rejected_key_stops_the_worker(place: Place, queue: str) -> None:
    with pytest.raises(Unauthenticated):
        await Worker(lambda job: None, url=place.url, key="worker_unknown", queues=[queue]).run_async()


async def test_jobs_leased_during_a_stop_are_released(place: Place, aclient: AsyncClient, queue: str) -> None:
    """The server leased the jobs, and the worker stops before the answer arrives."""
    (job_id, _) = [one.job_id for one in await aclient.submit_many([NewJob(payload=i, queue=queue) for i in range(2)])]
    crossed = False

    async def stop_once(path: str) -> None:
        nonlocal crossed
        if path == "/jobs/lease" and not crossed:
            crossed = True
            assert (await aclient.get(job_id)).state == "RUNNING"
            worker.stop()
            await asyncio.sleep(WAIT_S)

    transport = watched(place, nothing, stop_once)
    worker = Worker(lambda job: "r", queues=[queue], transport=transport)
    await asyncio.wait_for(worker.run_async(), WAIT_S)
    assert [(job["state"], job["attempts"]) for job in place.jobs(queue=queue)] == [("READY", 0)] * 2


async def test_a_lease_is_extended_until_its_ack_is_answered(place: Place, aclient: AsyncClient, queue: str) -> None:
    told = asyncio.Event()

    async def hold_acks(path: str) -> None:
        if path == "/jobs/ack" and not told.is_set():
            await asyncio.sleep(2.5)
            told.set()

    transport = watched(place, hold_acks, nothing)
    worker = Worker(lambda job: "r", queues=[queue], transport=transport, lease_ms=1000)
    running = asyncio.create_task(worker.run_async())
    done = await outcome(aclient, queue)
    worker.stop()
    await running
    assert (done.result, done.attempts) == ("r", 1)


async def test_a_burst_runs_jobs_submitted_during_its_last_lease_request(
    place: Place, aclient: AsyncClient, queue: str
) -> None:
    """The lease answer is empty, but meanwhile the last running job is acked with a follow-up job."""
    answered, told = asyncio.Event(), asyncio.Event()
    asked = 0

    async def hold_the_second(path: str) -> None:
        nonlocal asked
        asked += path == "/jobs/lease"
        if path == "/transactions":
            told.set()
        elif asked == 2 and not answered.is_set():
            answered.set()
            await told.wait()
            await asyncio.sleep(0.1)

    async def handler(job: Job[int]) -> Any:
        await answered.wait()
        return Success(job.payload, then=[NewJob(payload=2, queue=queue)] if job.payload == 1 else [])

    await aclient.submit(1, queue=queue)
    transport = watched(place, nothing, hold_the_second)
    await asyncio.wait_for(Worker(handler, queues=[queue], transport=transport).run_async(burst=True), WAIT_S)
    assert [job["state"] for job in place.jobs(queue=queue)] == ["ACKED", "ACKED"]


async def test_a_job_runs_again_after_a_bug_in_the_worker(
    aclient: AsyncClient, queue: str, at_work: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease expires, and the job runs again."""
    right, faults = slots.ack_of, [ZeroDivisionError("a fault")]

    def wrong_once(*given: Any) -> Any:
        if faults:
            raise faults.pop()
        return right(*given)

    monkeypatch.setattr(slots, "ack_of", wrong_once)
    async with at_work(lambda job: "r"):
        done = await outcome(aclient, queue)
    assert (done.result, done.attempts) == ("r", 2)


async def test_an_idle_worker_sends_few_requests(place: Place, queue: str, at_work: Starts) -> None:
    asked: list[str] = []

    async def count(path: str) -> None:
        asked.append(path)

    transport = watched(place, count, nothing)
    async with at_work(lambda job: None, transport=transport, lease_ms=30_000, wait_ms=400):
        await asyncio.sleep(1.3)
    assert 2 <= asked.count("/jobs/lease") <= 6
