"""A worker survives whatever a handler raises, returns or starts, and says what it was."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from fastq import AsyncClient, Worker
from tests.client import deeds
from tests.client.served import Place, Starts, outcome

KINDS = ["async", "thread", "process"]


def near_of(queue: str) -> str:
    return f"near.{queue}"[:64]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def worker(place: Place, queue: str, kind: str) -> Worker:
    worker = Worker(url=place.url, key=place.keys["worker"], concurrency=4, lease_ms=2000)
    handler: Any = {"async": deeds.loop, "thread": deeds.thread, "process": deeds.process}[kind]
    worker.handles(queue, in_process=kind == "process")(handler)
    worker.handles(near_of(queue))(deeds.neighbour)
    return worker


async def test_whatever_a_handler_raises_or_returns_fails_its_attempt_alone(
    place: Place, aclient: AsyncClient, queue: str, kind: str, worker: Worker, at_work_with: Starts
) -> None:
    """The text and code are kept, what cannot be sent is dropped, and a job beside it runs to its end."""
    async with at_work_with(worker):
        near = asyncio.create_task(outcome(aclient, near_of(queue), 2.0))
        ended = await asyncio.gather(*(outcome(aclient, queue, name, max_retries=0) for name in deeds.DEEDS))
        assert ((await near).result, (await near).attempts) == ("unharmed", 1)
        assert (await outcome(aclient, near_of(queue), 0.0)).result == "unharmed"
    wrong = {}
    for (name, (_, error, code)), job in zip(deeds.DEEDS.items(), ended, strict=True):
        (attempt,) = place.attempts(job.job_id)
        told = (job.state, job.error, attempt.get("error_code", ""))
        if job.state != "DEAD" or not job.error.startswith(error) or (code and told[2] != code):
            wrong[name] = told
    if kind == "process":  # its value cannot leave the process
        assert wrong.pop("any snooze")[1:] == ("SystemExit: no class", "SystemExit")
        assert wrong.pop("generator")[1:] == ("TypeError: cannot pickle 'generator' object", "TypeError")
    assert wrong == {}


async def test_what_a_handler_starts_or_changes_harms_no_other(
    aclient: AsyncClient, queue: str, worker: Worker, at_work_with: Starts
) -> None:
    """Forks, pools, threads, masks. The worker does not take the signals that its children get."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    async with at_work_with(worker):
        near = asyncio.create_task(outcome(aclient, near_of(queue), 1.0))
        for name, (_, result) in deeds.ODD.items():
            job = await outcome(aclient, queue, name)
            assert (name, job.state, job.result, job.attempts) == (name, "ACKED", result, 1)
        assert (await near).result == "unharmed"
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # an async handler changed it
    assert before == {number: signal.getsignal(number) for number in before}


@pytest.mark.parametrize("end", ["_exit", "SIGKILL", "SIGSEGV", "SIGTERM"])
async def test_the_end_of_a_process_is_told_by_name(
    place: Place, aclient: AsyncClient, queue: str, at_work_with: Starts, end: str
) -> None:
    worker = Worker(url=place.url, key=place.keys["worker"], concurrency=2, lease_ms=2000)
    worker.handles(queue, in_process=True)(ends)
    async with at_work_with(worker):
        dead = await outcome(aclient, queue, end, max_retries=0)
        assert (await outcome(aclient, queue, "fine")).result == "fine"
    how = "ended with exit code 3" if end == "_exit" else f"was killed by {end}"
    assert (dead.error, dead.state) == (f"ProcessEnded: the process {how}", "DEAD")


def ends(job: Any) -> str:
    if job.payload == "_exit":
        os._exit(3)
    if job.payload.startswith("SIG"):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), getattr(signal, job.payload))
    return str(job.payload)
