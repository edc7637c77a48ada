"""Dramatiq: threads."""

from __future__ import annotations

import threading

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.sdk.timing import Countdown, called, noop, timed


def submit(url: str, jobs: int, _: int) -> None:
    broker = RedisBroker(url=url)
    dramatiq.set_broker(broker)
    task = dramatiq.actor(noop, actor_name="task")
    with timed(jobs):
        for n in range(jobs):
            task.send(n)


def work(url: str, jobs: int, slots: int) -> None:
    broker = RedisBroker(url=url)
    dramatiq.set_broker(broker)
    countdown = Countdown(jobs)

    @dramatiq.actor(actor_name="task")
    def task(n: int) -> None:
        noop(n)
        countdown.one()

    dramatiq.Worker(broker, worker_threads=slots).start()
    threading.Event().wait()  # until the countdown ends the process


if __name__ == "__main__":
    called({"submit": submit, "work": work})
