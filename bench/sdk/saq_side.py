"""SAQ."""

from __future__ import annotations

import uvloop
from saq import Queue, Worker

from bench.sdk.timing import Countdown, called, many, noop, timed


def submit_async(url: str, jobs: int, at_a_time: int) -> None:
    async def run() -> None:
        queue = Queue.from_url(url)
        await queue.connect()
        with timed(jobs):
            await many(lambda n: queue.enqueue("task", n=n), jobs, at_a_time)
        await queue.disconnect()

    uvloop.run(run())


def work_async(url: str, jobs: int, slots: int) -> None:
    async def run() -> None:
        countdown = Countdown(jobs)

        async def task(_: dict[str, object], *, n: int) -> None:
            noop(n)
            countdown.one()

        await Worker(Queue.from_url(url), functions=[("task", task)], concurrency=slots).start()

    uvloop.run(run())


if __name__ == "__main__":
    called({"submit_async": submit_async, "work_async": work_async})
