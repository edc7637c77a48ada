"""arq. Its worker polls every half second by default; here every 5 ms."""

from __future__ import annotations

import asyncio

import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker

from bench.sdk.timing import called, many, noop, timed

POLL_S = 0.005


async def task(_: dict[str, object], n: int) -> None:
    noop(n)


def submit_async(url: str, jobs: int, at_a_time: int) -> None:
    async def run() -> None:
        pool = await create_pool(RedisSettings.from_dsn(url))
        with timed(jobs):
            await many(lambda n: pool.enqueue_job("task", n), jobs, at_a_time)
        await pool.aclose()

    uvloop.run(run())


def work_async(url: str, jobs: int, slots: int) -> None:
    asyncio.set_event_loop(uvloop.new_event_loop())
    settings = RedisSettings.from_dsn(url)
    worker = Worker(functions=[task], redis_settings=settings, burst=True, max_jobs=slots, poll_delay=POLL_S)
    with timed(jobs):
        worker.run()


if __name__ == "__main__":
    called({"submit_async": submit_async, "work_async": work_async})
