"""fastq.testing: the server in memory, whose time the test moves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fastq import Cron, Failure, Forbidden, Job, NewJob, NotFinished, NotFound, Success, Worker
from fastq.testing import START, Server


def test_a_worker_and_a_clock() -> None:
    worker = Worker()

    @worker.handles("default")
    def double(job: Job[int]) -> Any:
        if job.attempt == 1:
            return Failure(error="not yet")
        return Success(job.payload * 2, then=[NewJob(payload="next", queue="other")])

    with Server() as server, server.client() as client:
        job_id = client.submit(4, delay_ms=60_000).job_id
        server.work(worker)
        assert client.get(job_id).state == "SCHEDULED"
        server.advance(60)
        assert server.now == START + timedelta(seconds=60)
        server.work(worker)
        assert (client.get(job_id).state, client.get(job_id).error) == ("RETRY", "not yet")
        server.work(worker)
        assert client.get(job_id).attempts == 1
        server.advance(timedelta(seconds=1))
        server.work(worker)
        done = client.wait_for_completion(job_id)
        assert (done.result, done.attempts) == (8, 2)
        assert client.lease(["other"])[0].payload == "next"
        assert worker.transport is None


def test_leases_run_out_when_the_test_says_so() -> None:
    with Server() as server, server.client() as client:
        job_id = client.submit("x", max_retries=2).job_id
        for _ in range(2):
            (job,) = client.lease(lease_ms=5000)
            server.advance(4.999)
            assert client.get(job_id).state == "RUNNING"
            server.advance(2)
            server.advance(5)
        assert (client.get(job_id).state, client.get(job_id).error) == ("DEAD", "lease_expired")
        assert job.attempt == 2


def test_a_day_of_a_schedule() -> None:
    with Server() as server, server.client() as client:
        client.put_schedule("s", Cron("0 * * * *", overlap="allow"), "tick")
        server.advance(timedelta(hours=24))
        jobs = client.lease(limit=100)
        assert [job.created_at for job in jobs] == [START + timedelta(hours=hour) for hour in range(1, 25)]


def test_keys_and_owners_are_the_real_ones() -> None:
    with Server() as server, server.client("client", "ann") as ann, server.client("client", "bob") as bob:
        job_id = ann.submit("x").job_id
        with pytest.raises(NotFound):
            bob.get(job_id)
        with pytest.raises(Forbidden):
            ann.lease()
        with pytest.raises(NotFinished):
            ann.wait_for_completion(job_id, 0.01)


async def test_in_an_event_loop() -> None:
    async def handler(job: Job[str]) -> str:
        return job.payload.upper()

    with Server() as server:
        async with server.async_client() as client:
            stored = await client.submit_many(["a", "b"])
            await server.work_async(Worker(handler, concurrency=1))
            assert [(await client.get(one.job_id)).result for one in stored] == ["A", "B"]


def test_time_goes_forward() -> None:
    with Server() as server, pytest.raises(ValueError, match="forward"):
        server.advance(-1)
