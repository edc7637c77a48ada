"""The worker against a real server."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fastq import (
    AsyncClient,
    Failure,
    Job,
    JobStatus,
    LeaseGone,
    NewJob,
    Snooze,
    Success,
    Unauthenticated,
    Worker,
)
from fastq.sdk.async_transport import LoopTransport
from fastq.sdk.client import address_of
from tests.sdk.served import Place

Starts = Callable[..., Any]
WAIT_S = 20


@dataclasses.dataclass
class Film:
    path: str
    minutes: int


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    return str(request.node.name).replace("[", ".").replace("]", "")[-60:]


@pytest.fixture
def at_work(place: Place, queue: str) -> Starts:
    """`async with at_work(handler, …) as worker:` it runs, on the test's own queue."""

    @asynccontextmanager
    async def start(handler: Any, **options: Any) -> AsyncIterator[Worker]:
        options = {"url": place.url, "key": place.keys["worker"], "queues": [queue], "lease_ms": 1000, **options}
        worker = Worker(handler, **options)
        running = asyncio.create_task(worker.run_async())
        try:
            yield worker
        finally:
            worker.stop()
            await asyncio.wait_for(running, WAIT_S)

    return start


async def outcome(aclient: AsyncClient, queue: str, payload: Any = "x", **options: Any) -> JobStatus:
    return await aclient.submit_and_wait(payload, queue=queue, timeout_s=WAIT_S, **options)


# --- handlers and outcomes --------------------------------------------------------------------------------------------


async def test_async_handler_with_a_typed_payload(aclient: AsyncClient, queue: str, at_work: Starts) -> None:
    async def encode(job: Job[Film]) -> dict[str, Any]:
        assert isinstance(job.payload, Film)
        return {"path": job.payload.path, "attempt": job.attempt, "queue": job.queue}

    async with at_work(encode):
        done = await outcome(aclient, queue, Film("a.mp4", 3))
        assert done.result == {"path": "a.mp4", "attempt": 1, "queue": queue}
        bad = await outcome(aclient, queue, {"path": 1}, max_retries=0)
        assert bad.state == "DEAD" and bad.error.startswith("the payload is not as expected")


async def test_threads_run_beside_each_other(aclient: AsyncClient, queue: str, at_work: Starts) -> None:
    together = threading.Barrier(4)

    def meet(job: Job[int]) -> int:
        together.wait(WAIT_S)
        return job.payload

    async with at_work(meet, concurrency=4):
        done = await asyncio.gather(*(outcome(aclient, queue, i) for i in range(4)))
    assert [one.result for one in done] == [0, 1, 2, 3]


RETURNED: list[tuple[Any, str, Any, str]] = [
    ("plain", "ACKED", "plain", ""),
    (None, "ACKED", None, ""),
    (Success({"n": 1}), "ACKED", {"n": 1}, ""),
    (Failure(error="no", code="c", result=[1]), "DEAD", [1], "no"),
    (Failure(error="never", discard=True), "DEAD", None, "never"),
    (ValueError("wrong"), "DEAD", None, "ValueError: wrong"),
    ({1, object()}, "DEAD", None, "the result has no JSON"),
    ("r" * 1_100_000, "DEAD", None, "the outcome was refused: "),
]


@pytest.mark.parametrize("is_async", [True, False])
async def test_what_a_handler_may_do(
    aclient: AsyncClient, queue: str, at_work: Starts, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def decide(job: Job[int]) -> Any:
        value = RETURNED[job.payload][0]
        if isinstance(value, Exception):
            raise value
        return value

    async def decide_async(job: Job[int]) -> Any:
        return decide(job)

    async with at_work(decide_async if is_async else decide, concurrency=20):
        done = await asyncio.gather(*(outcome(aclient, queue, i, max_retries=0) for i in range(len(RETURNED))))
    for (_, state, result, error), job in zip(RETURNED, done, strict=True):
        assert (job.state, job.result) == (state, result)
        assert job.error.startswith(error) and bool(job.error) == bool(error)
    assert any("ValueError" in (line.exc_text or "") for line in caplog.records)
    assert all(hasattr(line, "job_id") for line in caplog.records if "attempt 1 failed" in line.message)


async def test_retry_and_snooze(aclient: AsyncClient, queue: str, at_work: Starts) -> None:
    seen: list[int] = []

    async def third_time(job: Job[str]) -> Any:
        seen.append(job.attempt)
        if len(seen) == 1:
            raise OSError("once")
        if len(seen) == 2:
            return Snooze(1)
        assert job.is_last_attempt
        return "done"

    async with at_work(third_time):
        done = await outcome(aclient, queue, max_retries=2)
    assert (done.result, done.attempts, seen) == ("done", 2, [1, 2, 2])


async def test_follow_up_jobs_come_with_the_ack(
    place: Place, aclient: AsyncClient, queue: str, at_work: Starts
) -> None:
    """With a worker's key, which may not submit otherwise."""

    async def split(job: Job[int]) -> Any:
        return Success(job.payload, then=[NewJob(payload=job.payload - 1, queue=queue)] if job.payload else [])

    async def bad(job: Job[int]) -> Any:
        return Success(1, then=[NewJob(payload="", queue=queue)])

    async with at_work(split):
        await outcome(aclient, queue, 3)
        while len(place.jobs(queue=queue, state="ACKED")) < 4:  # noqa: ASYNC110 -- of the children nobody is told
            await asyncio.sleep(0.01)
    async with at_work(bad):
        dead = await outcome(aclient, queue, 1, max_retries=0)
    assert dead.error.startswith("the jobs that follow were refused: ")


async def test_each_queue_has_its_handler(place: Place, aclient: AsyncClient, queue: str) -> None:
    worker = Worker(url=place.url, key=place.keys["worker"])

    @worker.handles(f"{queue}-a")
    def first(job: Job[str]) -> str:
        return "a"

    @worker.handles(f"{queue}-b", payload_type=Film)
    async def second(job: Job[Any]) -> int:
        return int(job.payload.minutes)

    with pytest.raises(ValueError, match="has a handler already"):
        worker.handles(f"{queue}-a")(first)
    running = asyncio.create_task(worker.run_async())
    assert (await outcome(aclient, f"{queue}-a")).result == "a"
    assert (await outcome(aclient, f"{queue}-b", Film("x", 5))).result == 5
    worker.stop()
    await running


async def test_middleware_is_around(aclient: AsyncClient, queue: str, at_work: Starts) -> None:
    seen: list[str] = []

    def named(name: str) -> Any:
        async def one(job: Job[Any], rest: Callable[[], Awaitable[Any]]) -> Any:
            seen.append(f"{name} in")
            value = await rest()
            seen.append(f"{name} out")
            return f"{value}{name}"

        return one

    async with at_work(lambda job: "r", middleware=[named("1"), named("2")]):
        assert (await outcome(aclient, queue)).result == "r21"
    assert seen == ["1 in", "2 in", "2 out", "1 out"]


# --- leases -----------------------------------------------------------------------------------------------------------


async def test_leases_last_as_long_as_the_work(aclient: AsyncClient, queue: str, at_work: Starts) -> None:
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
        assert (dead.state, dead.error) == ("DEAD", "the time limit of 0.1 s is over")
        job_id = (await aclient.submit("next", queue=queue)).job_id
        assert (await aclient.get(job_id)).state == "READY"
        go_on.set()
        assert (await aclient.wait_for_completion(job_id, WAIT_S)).result == "done"


async def test_never_more_than_its_slots(place: Place, aclient: AsyncClient, queue: str, at_work: Starts) -> None:
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


# --- the end ----------------------------------------------------------------------------------------------------------


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
async def test_what_does_not_finish_is_released(aclient: AsyncClient, queue: str, at_work: Starts, how: str) -> None:
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


async def test_a_stop_during_a_lease_leaves_no_job_behind(place: Place, aclient: AsyncClient, queue: str) -> None:
    """Stopped at many points around the moment when jobs are handed out: each job is free again, or done."""
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


async def test_a_key_that_does_not_work_ends_it(place: Place, queue: str) -> None:
    with pytest.raises(Unauthenticated):
        await Worker(lambda job: None, url=place.url, key="worker_unknown", queues=[queue]).run_async()


def watched(place: Place, before: Callable[[str], Awaitable[None]], after: Callable[[str], Awaitable[None]]) -> Any:
    """A transport that tells of each request's path, before it is sent and when its answer is there."""

    class Watched(LoopTransport):
        async def send(self, call: Any, timeout_s: float) -> Any:
            await before(call.path)
            answer = await super().send(call, timeout_s)
            await after(call.path)
            return answer

    return Watched(address_of(place.url, place.keys["worker"]))


async def nothing(path: str) -> None:
    pass


async def test_jobs_whose_handing_out_crosses_a_stop_go_back(place: Place, aclient: AsyncClient, queue: str) -> None:
    """The server has handed them out, and the worker stops before it hears of them."""
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


async def test_a_lease_lasts_until_the_outcome_is_told(place: Place, aclient: AsyncClient, queue: str) -> None:
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


async def test_an_idle_worker_asks_rarely(place: Place, queue: str, at_work: Starts) -> None:
    asked: list[str] = []

    async def count(path: str) -> None:
        asked.append(path)

    transport = watched(place, count, nothing)
    async with at_work(lambda job: None, transport=transport, lease_ms=30_000, wait_ms=400):
        await asyncio.sleep(1.3)
    assert 2 <= asked.count("/jobs/lease") <= 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"lease_ms": 10}, "lease_ms"),
        ({"time_limit_s": 0}, "time_limit_s"),
    ],
)
def test_nonsense_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Worker(print, **options)


async def test_a_worker_without_work_does_not_start(place: Place) -> None:
    with pytest.raises(ValueError, match="no handler"):
        await Worker(url=place.url, key="k").run_async()
    worker = Worker(url=place.url, key="k", queues=["a"])
    worker.handles("b")(print)
    with pytest.raises(ValueError, match="no handler for queue 'a'"):
        await worker.run_async()


def test_logs_name_the_job(caplog: pytest.LogCaptureFixture) -> None:
    from fastq.sdk.job import _JobLog

    with caplog.at_level("INFO"):
        _JobLog(logging.getLogger("fastq.worker"), {"job_id": "j1"}).info("hello %d", 1, extra={"more": 2})
    (line,) = caplog.records
    assert (line.message, line.__dict__["job_id"], line.__dict__["more"]) == ("job j1: hello 1", "j1", 2)
