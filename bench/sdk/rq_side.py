"""RQ: SimpleWorker runs tasks in its own process, Worker (RQ's default) in a fork for each task."""

from __future__ import annotations

from redis import Redis
from rq import Queue, SimpleWorker, Worker

from bench.sdk.timing import called, noop, timed

BATCH = 1000


def submit(url: str, jobs: int, _: int) -> None:
    queue = Queue(connection=Redis.from_url(url))
    with timed(jobs):
        for n in range(jobs):
            queue.enqueue(noop, n)


def submit_many(url: str, jobs: int, _: int) -> None:
    queue = Queue(connection=Redis.from_url(url))
    with timed(jobs):
        for first in range(0, jobs, BATCH):
            queue.enqueue_many([Queue.prepare_data(noop, (n,)) for n in range(first, min(first + BATCH, jobs))])


def work(url: str, jobs: int, _: int) -> None:
    _work(SimpleWorker, url, jobs)


def work_forked(url: str, jobs: int, _: int) -> None:
    _work(Worker, url, jobs)


def _work(kind: type[Worker], url: str, jobs: int) -> None:
    connection = Redis.from_url(url)
    worker = kind([Queue(connection=connection)], connection=connection)
    with timed(jobs):
        worker.work(burst=True, logging_level="ERROR")


if __name__ == "__main__":
    called({"submit": submit, "submit_many": submit_many, "work": work, "work_forked": work_forked})
