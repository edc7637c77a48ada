"""Handlers in child processes, against a real server. The children import the handlers from this module."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import resource
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fastq import AsyncClient, Failure, Job, Worker
from tests.client.served import WAIT_S, Place, outcome, until_running

pytestmark = pytest.mark.slow


@dataclasses.dataclass
class Range:
    low: int
    high: int


def add(job: Job[Range]) -> Any:
    job.progress(50, "half")
    if job.payload.low < 0:
        raise ValueError("below zero")
    if job.payload.low > job.payload.high:
        return Failure(error="empty", discard=True)
    if job.payload.low == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    if job.payload.low == 14:
        return threading.Lock()  # which cannot leave its process
    return {"sum": sum(range(job.payload.low, job.payload.high)), "pid": os.getpid()}


LIMIT_TEXT = "the attempt exceeded its time limit of 0.3 s"


def spin(job: Job[str]) -> None:
    while True:
        pass


@pytest.fixture
def worker(place: Place, queue: str) -> Worker:
    worker = Worker(url=place.url, key=place.keys["worker"], concurrency=2, lease_ms=1000)
    worker.handles(queue, in_process=True)(add)
    return worker


async def test_outcomes_of_handlers_in_processes(
    place: Place, aclient: AsyncClient, queue: str, worker: Worker, at_work_with: Any
) -> None:
    async with at_work_with(worker):
        first = (await outcome(aclient, queue, Range(0, 5))).result
        assert first["sum"] == 10
        assert first["pid"] != os.getpid()
        assert (await outcome(aclient, queue, Range(0, 3))).result == {"sum": 3, "pid": first["pid"]}
        for low, error in (
            (-1, "ValueError: below zero"),
            (9, "empty"),
            (13, "ProcessEnded: the process was killed by SIGKILL"),
        ):
            dead = await outcome(aclient, queue, Range(low, 5 if low != 13 else 20), max_retries=0)
            assert (dead.state, dead.error) == ("DEAD", error)
        assert "pickle" in (await outcome(aclient, queue, Range(14, 20), max_retries=0)).error
        again = (await outcome(aclient, queue, Range(0, 5))).result
        assert again["pid"] != first["pid"]
    with pytest.raises(ProcessLookupError):
        os.kill(again["pid"], 0)


@pytest.mark.parametrize("how", ["cancel", "limit"])
async def test_a_cancelled_or_overdue_process_is_killed(
    place: Place, aclient: AsyncClient, queue: str, worker: Worker, at_work_with: Any, how: str
) -> None:
    worker.handles(f"{queue}-s", in_process=True)(spin)
    worker.concurrency = 1
    if how == "limit":
        worker.time_limit_s = 0.3
    async with at_work_with(worker):
        job_id = (await aclient.submit("x", queue=f"{queue}-s", max_retries=0)).job_id
        if how == "cancel":
            await until_running(aclient, job_id)
            await aclient.cancel(job_id)
        ended = await aclient.wait_for_completion(job_id, WAIT_S)
        assert ended.state == ("CANCELLED" if how == "cancel" else "DEAD")
        assert ended.error == {"cancel": "the job was cancelled", "limit": LIMIT_TEXT}[how]
        assert [one["error_code"] for one in place.attempts(job_id)] == [
            "cancelled" if how == "cancel" else "time_limit"
        ]
        assert (await outcome(aclient, queue, Range(0, 5))).result["sum"] == 10  # its slot is free


def together(job: Job[str]) -> int:
    """The number of processes that run this handler at once."""
    directory = Path(job.payload)
    (directory / str(os.getpid())).touch()
    threading.Event().wait(0.3)
    count = len(list(directory.iterdir()))
    (directory / str(os.getpid())).unlink()
    return count


@pytest.mark.parametrize("processes", [None, 3])
async def test_there_are_as_many_processes_as_cores_or_as_asked_for(
    place: Place, aclient: AsyncClient, queue: str, at_work_with: Any, processes: int | None, tmp_path: Path
) -> None:
    """Jobs of other handlers do not wait for a process."""
    worker = Worker(url=place.url, key=place.keys["worker"], concurrency=8, processes=processes, lease_ms=2000)
    worker.handles(queue, in_process=True)(together)
    worker.handles(f"{queue}.t")(lambda job: "quick")
    async with at_work_with(worker):
        slow = [asyncio.create_task(outcome(aclient, queue, str(tmp_path))) for _ in range(8)]
        await asyncio.wait_for(outcome(aclient, f"{queue}.t"), WAIT_S)
        ended = [await one for one in slow]
    assert max(job.result for job in ended) == (processes or min(8, len(os.sched_getaffinity(0))))
    assert {job.attempts for job in ended} == {1}


async def test_the_start_of_a_process_does_not_count_in_the_time_limit(
    place: Place, aclient: AsyncClient, queue: str, at_work_with: Any
) -> None:
    worker = Worker(url=place.url, key=place.keys["worker"], time_limit_s=0.05, lease_ms=2000)
    worker.handles(queue, in_process=True)(add)
    async with at_work_with(worker):
        done = await outcome(aclient, queue, Range(0, 5), max_retries=0)  # an interpreter starts in 100 ms or more
    assert done.result["sum"] == 10


def spoil(job: Job[str]) -> int:
    if job.payload == "directory":
        os.chdir("/")
    elif job.payload == "stdout":
        sys.stdout.close()
    elif job.payload == "files":
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
    elif job.payload == "signals":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    elif job.payload == "descriptors":
        os.closerange(3, 1000)
    else:
        print(job.payload, os.getcwd())
    return os.getpid()


async def test_a_process_that_a_handler_spoiled_is_replaced(
    place: Place, aclient: AsyncClient, queue: str, at_work_with: Any
) -> None:
    worker = Worker(url=place.url, key=place.keys["worker"], concurrency=1, lease_ms=2000)
    worker.handles(queue, in_process=True)(spoil)
    seen = set()
    async with at_work_with(worker):
        for what in ("directory", "stdout", "files", "signals"):
            seen.add((await outcome(aclient, queue, what)).result)
        dead = await outcome(aclient, queue, "descriptors", max_retries=0)
        assert dead.error == "ProcessEnded: the handler closed the connection of its process to the worker"
        seen |= {(await outcome(aclient, queue, what)).result for what in ("fine", "again")}
    assert len(seen) == 5


@pytest.mark.parametrize("handler", [lambda job: None, len])
def test_a_handler_that_no_process_can_import_is_refused_at_the_start(handler: Any) -> None:
    worker = Worker(url="http://127.0.0.1:1", key="k")
    worker.handles("q", in_process=True)(handler)
    if handler is len:
        assert worker.asked_queues == ["q"]
    else:
        with pytest.raises(ValueError, match="the handler of queue 'q' cannot run in a process"):
            worker.run()


def test_an_async_handler_cannot_run_in_a_process() -> None:
    async def handler(job: Job[str]) -> None:
        pass

    with pytest.raises(ValueError, match="child process"):
        Worker().handles("q", in_process=True)(handler)
