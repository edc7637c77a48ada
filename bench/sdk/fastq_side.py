"""fastq's clients and worker. FASTQ_KEY is an admin's key."""

from __future__ import annotations

import uvloop

import fastq
from bench.sdk.timing import called, many, noop, timed

BATCH = 1000


def submit(url: str, jobs: int, _: int) -> None:
    with fastq.Client(url) as client, timed(jobs):
        for n in range(jobs):
            client.submit(n)


def submit_async(url: str, jobs: int, at_a_time: int) -> None:
    async def run() -> None:
        async with fastq.AsyncClient(url) as client:
            with timed(jobs):
                await many(client.submit, jobs, at_a_time)

    uvloop.run(run())


def submit_many(url: str, jobs: int, _: int) -> None:
    with fastq.Client(url) as client, timed(jobs):
        for first in range(0, jobs, BATCH):
            client.submit_many(range(first, min(first + BATCH, jobs)))


def work(url: str, jobs: int, slots: int) -> None:
    worker = fastq.Worker(lambda job: noop(job.payload), url=url, concurrency=slots)
    with timed(jobs):
        worker.run(burst=True)


def work_async(url: str, jobs: int, slots: int) -> None:
    async def task(job: fastq.Job[int]) -> None:
        noop(job.payload)

    worker = fastq.Worker(task, url=url, concurrency=slots)
    with timed(jobs):
        worker.run(burst=True)


if __name__ == "__main__":
    called({"submit": submit, "submit_async": submit_async, "submit_many": submit_many,
            "work": work, "work_async": work_async})  # fmt: skip
