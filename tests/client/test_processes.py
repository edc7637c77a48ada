"""Handlers in child processes, against a real server. The children import the handlers from this module."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
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
        worker.time_limit_s = 2.0
    async with at_work_with(worker):
        job_id = (await aclient.submit("x", queue=f"{queue}-s", max_retries=0)).job_id
        if how == "cancel":
            await until_running(aclient, job_id)
            await aclient.cancel(job_id)
        ended = await aclient.wait_for_completion(job_id, WAIT_S)
        assert ended.state == ("CANCELLED" if how == "cancel" else "DEAD")
        assert (await outcome(aclient, queue, Range(0, 5))).result["sum"] == 10  # its slot is free


def test_an_async_handler_cannot_run_in_a_process() -> None:
    async def handler(job: Job[str]) -> None:
        pass

    with pytest.raises(ValueError, match="child process"):
        Worker().handles("q", in_process=True)(handler)
