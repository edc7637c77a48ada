"""kill -9 of the server and of a worker: nothing is lost or doubled."""

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
from tests.client.served import Place
from tests.served import Served, free_port

pytestmark = pytest.mark.slow

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


def test_submits_survive_kills_of_the_server(place: Place) -> None:
    acknowledged: list[list[str]] = [[] for _ in range(THREADS)]
    progress = threading.Semaphore(0)

    with Client(place.url, place.keys["client"], timeout_s=60) as client:

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


async def test_a_worker_survives_kills_of_the_server(place: Place) -> None:
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
        assert 1 <= runs[i] <= job.attempts  # an attempt whose lease answer was lost never started
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


def start_worker(place: Place, directory: Path, *options: str) -> subprocess.Popen[str]:
    env = os.environ | {"FASTQ_URL": place.url, "FASTQ_KEY": place.keys["worker"]}
    argv = [sys.executable, "-m", "fastq", "worker", "app:worker", "--concurrency", "8", *options]
    return subprocess.Popen(argv, cwd=directory, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_jobs_of_a_killed_worker_run_again(place: Place, tmp_path: Path) -> None:
    """Also of a stopped one. Both run as `fastq worker`."""
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
            client.submit_and_wait(0, timeout_s=60)  # the second worker works, even if the first one had done them all
            done = [client.wait_for_completion(one.job_id, 60) for one in stored]
        finally:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
    assert [job.result for job in done] == [2 * i for i in range(WORKED)]
    assert process.returncode == 0
    assert "has stopped" in said
    assert place.keys["worker"] not in said


STUCK = """
import threading

import fastq

worker = fastq.Worker(lambda job: print("stuck", flush=True) or threading.Event().wait(300))
"""


def test_a_stop_does_not_wait_for_a_stuck_thread(place: Place, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(STUCK)
    with Client(place.url, place.keys["client"]) as client:
        job_id = client.submit("x").job_id
        process = start_worker(place, tmp_path, "--stop", "0.1")
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "stuck\n"
            process.terminate()
            process.communicate(timeout=30)
        finally:
            process.kill()
        assert process.returncode == 0
        job = client.get(job_id)
        assert (job.state, job.attempts, job.outcome) == ("READY", 0, "released")


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("nowhere:worker", "no module 'nowhere'"),
        ("app:other", "no fastq.Worker named 'other'"),
        ("app", "no handler"),
    ],
)
def test_fastq_worker_reports_a_bad_app(tmp_path: Path, app: str, said: str) -> None:
    (tmp_path / "app.py").write_text("import fastq; worker = fastq.Worker(); other = 1")
    argv = [sys.executable, "-m", "fastq", "worker", app]
    env = os.environ | {"FASTQ_KEY": "worker_x", "FASTQ_URL": "http://127.0.0.1:1"}
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (1, 2)
    assert said in done.stderr and "Traceback" not in done.stderr


def test_a_rejected_key_stops_the_worker(place: Place, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    env = os.environ | {"FASTQ_KEY": "worker_x", "FASTQ_URL": place.url}
    argv = [sys.executable, "-m", "fastq", "worker", "app"]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "fastq: Invalid API key (401 unauthenticated)"
