"""Progress reports: only the newest counts, and the last one is there before the outcome."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from fastq import AsyncClient, Job, Worker
from tests.client.served import WAIT_S, Place, Starts, nothing, outcome, watched


def reports(job: Job[int]) -> str:
    for percent in range(job.payload + 1):
        job.progress(percent, f"{percent} of {job.payload}")
    return "done"


async def reports_async(job: Job[int]) -> str:
    for percent in range(job.payload + 1):
        job.progress(percent, f"{percent} of {job.payload}")
        await asyncio.sleep(0)
    return "done"


@pytest.mark.parametrize("kind", ["async", "thread", "process"])
async def test_the_last_report_of_many_is_there_with_the_outcome(
    place: Place, aclient: AsyncClient, queue: str, at_work_with: Starts, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(url=place.url, key=place.keys["worker"], lease_ms=2000)
    worker.handles(queue, in_process=kind == "process")(reports_async if kind == "async" else reports)
    async with at_work_with(worker):
        for most in (100, 1, 100):
            done = await outcome(aclient, queue, most)
            assert done.progress is not None
            assert (done.result, done.progress.percent, done.progress.note) == ("done", most, f"{most} of {most}")
    assert [line.message for line in caplog.records if line.levelname == "WARNING"] == []


async def test_reports_that_wait_are_replaced(place: Place, aclient: AsyncClient, queue: str, at_work: Starts) -> None:
    sent, go_on = 0, asyncio.Event()

    async def hold_the_first(path: str) -> None:
        nonlocal sent
        if path.endswith("/progress"):
            sent += 1
            await go_on.wait()

    async def handler(job: Job[str]) -> None:
        for percent in range(100):
            job.progress(percent)
            await asyncio.sleep(0)
        go_on.set()

    async with at_work(handler, transport=watched(place, hold_the_first, nothing)):
        done = await outcome(aclient, queue)
    assert (sent, done.progress.percent) == (2, 99)  # type: ignore[union-attr]


async def test_a_report_after_the_end_or_out_of_range_harms_nothing(
    aclient: AsyncClient, queue: str, at_work: Starts, caplog: pytest.LogCaptureFixture
) -> None:
    ended, later = threading.Event(), threading.Event()

    def handler(job: Job[Any]) -> str:
        def report() -> None:
            ended.wait(WAIT_S)
            job.progress(7, "too late")
            later.set()

        threading.Thread(target=report).start()
        job.progress(-5, "\udce9" * 100)
        job.progress(500, "é" * 150)
        return "done"

    async with at_work(handler):
        done = await outcome(aclient, queue)
        ended.set()
        assert await asyncio.to_thread(later.wait, WAIT_S)
        again = await aclient.get(done.job_id)
    assert again.progress is not None
    assert (done.result, again.progress.percent, again.progress.note) == ("done", 100, "é" * 100)
    assert [line.message for line in caplog.records if line.levelname == "WARNING"] == []
