"""The worker against a real server."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pydantic
import pytest

from fastq import (
    AsyncClient,
    Failure,
    Job,
    NewJob,
    Snooze,
    Success,
    Worker,
)
from tests.client.served import WAIT_S, Place, Starts, outcome


@dataclasses.dataclass
class Film:
    path: str
    minutes: int


# --- handlers and outcomes --------------------------------------------------------------------------------------------


async def test_async_handler_with_a_typed_payload(aclient: AsyncClient, queue: str, at_work: Starts) -> None:
    async def encode(job: Job[Film]) -> dict[str, Any]:
        assert isinstance(job.payload, Film)
        return {"path": job.payload.path, "attempt": job.attempt, "queue": job.queue}

    async with at_work(encode):
        done = await outcome(aclient, queue, Film("a.mp4", 3))
        assert done.result == {"path": "a.mp4", "attempt": 1, "queue": queue}
        bad = await outcome(aclient, queue, {"path": 1}, max_retries=0)
        assert bad.state == "DEAD" and bad.error.startswith("the payload does not match the handler's type")


async def test_threads_run_concurrently(aclient: AsyncClient, queue: str, at_work: Starts) -> None:
    together = threading.Barrier(4)

    def meet(job: Job[int]) -> int:
        together.wait(WAIT_S)
        return job.payload

    async with at_work(meet, concurrency=4):
        done = await asyncio.gather(*(outcome(aclient, queue, i) for i in range(4)))
    assert [one.result for one in done] == [0, 1, 2, 3]


class Clip(pydantic.BaseModel):
    path: str
    at: datetime


@pytest.mark.parametrize("value", [Clip(path="a", at=datetime(2026, 1, 1, tzinfo=UTC)), Film("b", 1)])
async def test_typed_payloads_and_results(aclient: AsyncClient, queue: str, at_work: Starts, value: Any) -> None:
    """pydantic models and dataclasses."""

    async def give_back(job: Job[Any]) -> Any:
        assert type(job.payload) is type(value)
        return job.payload

    async with at_work(None) as worker:
        worker.handles(queue, type(value))(give_back)
        assert (await outcome(aclient, queue, value)).result_as(type(value)) == value


RETURNED: list[tuple[Any, str, Any, str]] = [
    ("plain", "ACKED", "plain", ""),
    (None, "ACKED", None, ""),
    (Success({"n": 1}), "ACKED", {"n": 1}, ""),
    (Failure(error="no", code="c", result=[1]), "DEAD", [1], "no"),
    (Failure(error="never", discard=True), "DEAD", None, "never"),
    (ValueError("wrong"), "DEAD", None, "ValueError: wrong"),
    ({1, object()}, "DEAD", None, "the result cannot be encoded as JSON"),
    ("r" * 1_100_000, "DEAD", None, "the result cannot be encoded as JSON: result: 1,100,002 bytes"),
]


@pytest.mark.parametrize("is_async", [True, False])
async def test_outcomes_of_handlers(
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


async def test_follow_up_jobs_are_submitted_with_the_ack(
    place: Place, aclient: AsyncClient, queue: str, at_work: Starts
) -> None:
    """A worker key may submit follow-up jobs, and no others."""

    async def split(job: Job[int]) -> Any:
        return Success(job.payload, then=[NewJob(payload=job.payload - 1, queue=queue)] if job.payload else [])

    async def bad(job: Job[int]) -> Any:
        return Success(1, then=[NewJob(payload="", queue=queue)])

    async with at_work(split):
        await outcome(aclient, queue, 3)
        while len(place.jobs(queue=queue, state="ACKED")) < 4:  # noqa: ASYNC110 -- there is no event for the children
            await asyncio.sleep(0.01)
    async with at_work(bad):
        dead = await outcome(aclient, queue, 1, max_retries=0)
    assert dead.error.startswith("the follow-up jobs were refused: ")


async def test_each_queue_has_its_handler(place: Place, aclient: AsyncClient, queue: str) -> None:
    worker = Worker(url=place.url, key=place.keys["worker"])

    @worker.handles(f"{queue}-a")
    def first(job: Job[str]) -> str:
        return "a"

    @worker.handles(f"{queue}-b", payload_type=Film)
    async def second(job: Job[Any]) -> int:
        return int(job.payload.minutes)

    with pytest.raises(ValueError, match="already has a handler"):
        worker.handles(f"{queue}-a")(first)
    running = asyncio.create_task(worker.run_async())
    assert (await outcome(aclient, f"{queue}-a")).result == "a"
    assert (await outcome(aclient, f"{queue}-b", Film("x", 5))).result == 5
    worker.stop()
    await running


async def test_middleware_wraps_each_attempt(aclient: AsyncClient, queue: str, at_work: Starts) -> None:
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"lease_ms": 10}, "lease_ms"),
        ({"time_limit_s": 0}, "time_limit_s"),
    ],
)
def test_invalid_arguments_raise_value_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Worker(print, **options)


async def test_a_worker_without_handlers_does_not_start(place: Place) -> None:
    with pytest.raises(ValueError, match="no handler"):
        await Worker(url=place.url, key="k").run_async()
    worker = Worker(url=place.url, key="k", queues=["a"])
    worker.handles("b")(print)
    with pytest.raises(ValueError, match="no handler for queue 'a'"):
        await worker.run_async()


def test_logs_name_the_job(caplog: pytest.LogCaptureFixture) -> None:
    from fastq.client.job import _JobLog

    with caplog.at_level("INFO"):
        _JobLog(logging.getLogger("fastq.worker"), {"job_id": "j1"}).info("hello %d", 1, extra={"more": 2})
    (line,) = caplog.records
    assert (line.message, line.__dict__["job_id"], line.__dict__["more"]) == ("job j1: hello 1", "j1", 2)
