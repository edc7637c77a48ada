"""kill -9 of the server, and of a worker, in the middle: nothing is lost and nothing doubled."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastq import AsyncClient, Client, Job, NewJob, Worker
from tests.sdk.served import Place
from tests.served import Served, free_port

KILLS = 4
SUBMITTED = 150  # by each thread
THREADS = 4
WORKED = 400


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Served(
        tmp_path / "data", PORT=str(free_port()), BACKOFF_BASE="1ms", BACKOFF_CAP="1ms", LEASE_CHECK_INTERVAL="100ms"
    ) as server:
        yield Place(server)


def kill_and_start(place: Place) -> None:
    place.server.kill()
    place.server.start()


def test_submits_while_the_server_is_killed(place: Place) -> None:
    acknowledged: list[list[str]] = [[] for _ in range(THREADS)]
    progress = threading.Semaphore(0)

    with Client(place.url, place.keys["client"]) as client:

        def submit(which: int) -> None:
            for i in range(SUBMITTED):
                if i % 10 == 9:
                    batch = [NewJob(payload=f"{which}-{i}-{k}") for k in range(3)]
                    acknowledged[which] += [one.job_id for one in client.submit_many(batch)]
                else:
                    acknowledged[which].append(client.submit(f"{which}-{i}").job_id)
                progress.release()

        threads = [threading.Thread(target=submit, args=(which,)) for which in range(THREADS)]
        for thread in threads:
            thread.start()
        for _ in range(KILLS):
            for _ in range(SUBMITTED * THREADS // (KILLS + 1)):
                assert progress.acquire(timeout=60)
            kill_and_start(place)
        for thread in threads:
            thread.join()
    ids = [job_id for part in acknowledged for job_id in part]
    assert len(ids) == THREADS * (SUBMITTED + SUBMITTED // 10 * 2)
    assert sorted(job["job_id"] for job in place.jobs()) == sorted(ids)


async def test_a_worker_while_the_server_is_killed(place: Place) -> None:
    runs: dict[int, int] = {}
    halfway = asyncio.Semaphore(0)

    async def handler(job: Job[int]) -> int:
        runs[job.payload] = runs.get(job.payload, 0) + 1
        await asyncio.sleep(random.random() / 50)
        halfway.release()
        return job.payload * 2

    worker = Worker(handler, url=place.url, key=place.keys["worker"], concurrency=16, lease_ms=2000)
    async with AsyncClient(place.url, place.keys["client"]) as client:
        stored = await client.submit_many(NewJob(payload=i, max_retries=KILLS + 2) for i in range(WORKED))
        running = asyncio.create_task(worker.run_async())
        for _ in range(KILLS):
            for _ in range(WORKED // (KILLS + 1)):
                await asyncio.wait_for(halfway.acquire(), 60)
            await asyncio.to_thread(kill_and_start, place)
        done = [await client.wait_for_completion(one.job_id, 60) for one in stored]
        worker.stop()
        await running
    assert [job.result for job in done] == [2 * i for i in range(WORKED)]
    assert {job.state for job in done} == {"ACKED"}
    for i, job in enumerate(done):
        assert 1 <= runs[i] <= job.attempts  # an attempt whose lease was lost on the way was never begun
        assert [one["outcome"] for one in place.attempts(job.job_id)].count("ok") == 1
    assert sum(runs.values()) <= WORKED + KILLS * 16
    assert len(place.jobs()) == WORKED


APP = """
import fastq

worker = fastq.Worker(lease_ms=1000)


@worker.handles("default")
def double(job: fastq.Job[int]) -> int:
    return job.payload * 2
"""


def start_worker(place: Place, directory: Path) -> subprocess.Popen[str]:
    env = os.environ | {"FASTQ_URL": place.url, "FASTQ_KEY": place.keys["worker"]}
    argv = [sys.executable, "-m", "fastq", "worker", "app:worker", "--concurrency", "8"]
    return subprocess.Popen(argv, cwd=directory, env=env, stderr=subprocess.PIPE, text=True)


def test_a_worker_that_is_killed(place: Place, tmp_path: Path) -> None:
    """And one that is stopped: `fastq worker` as people start it."""
    (tmp_path / "app.py").write_text(APP)
    with Client(place.url, place.keys["client"]) as client:
        stored = client.submit_many(NewJob(payload=i) for i in range(WORKED))
        process = start_worker(place, tmp_path)
        try:
            client.wait_for_completion(stored[WORKED // 4].job_id, 60)
        finally:
            process.kill()
            process.communicate()
        process = start_worker(place, tmp_path)
        try:
            done = [client.wait_for_completion(one.job_id, 60) for one in stored]
        finally:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
    assert [job.result for job in done] == [2 * i for i in range(WORKED)]
    assert process.returncode == 0
    assert "has stopped" in said
    assert place.keys["worker"] not in said
