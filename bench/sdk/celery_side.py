"""Celery: the pool `solo` for one slot, `threads` for more. No result backend, no gossip, no events."""

from __future__ import annotations

from celery import Celery

from bench.sdk.timing import Countdown, called, noop, timed


def submit(url: str, jobs: int, _: int) -> None:
    task = Celery("bench", broker=url).task(noop, name="task", ignore_result=True)
    with timed(jobs):
        for n in range(jobs):
            task.delay(n)


def work(url: str, jobs: int, slots: int) -> None:
    app = Celery("bench", broker=url)
    countdown = Countdown(jobs)

    @app.task(name="task", ignore_result=True)
    def task(n: int) -> None:
        noop(n)
        countdown.one()

    pool = "solo" if slots == 1 else "threads"
    app.Worker(
        pool=pool, concurrency=slots, without_gossip=True, without_mingle=True, without_heartbeat=True, loglevel="ERROR"
    ).start()


if __name__ == "__main__":
    called({"submit": submit, "work": work})
