"""A server on a full disk: submits are refused, acks go on, and it recovers by itself."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fastq.log.files.ready import READY_SEGMENTS
from fastq.log.protocol import RESERVE_SEGMENTS
from tests.served import Served

pytestmark = pytest.mark.slow

SEGMENT_BYTES = 4 << 20
DISK_BYTES = 10 * SEGMENT_BYTES + (1 << 20)
PAYLOAD = "p" * 100_000
RESULT = "r" * 2000
BATCH = 10
ROUND_BYTES = 600  # in the log, about: a job's lease and its end
START_S = 0.9  # less than the wait between two attempts on a full disk


@contextmanager
def mounted(point: Path, disk_bytes: int) -> Iterator[Path]:
    """A file system of that size. Skips the test where none can be mounted."""
    point.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={disk_bytes}", "tmpfs", str(point)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("a file system can be mounted by root only, and where that is allowed")
    try:
        yield point
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for ten segments."""
    with mounted(tmp_path / "disk", DISK_BYTES) as disk:
        yield disk


def served(disk: Path, **settings: str) -> Served:
    short = {"RETENTION_ACKED": "100ms", "LEASE_CHECK_INTERVAL": "50ms", "LEASE_DURATION": "10m"}
    return Served(disk / "data", **{"WAL_SEGMENT_BYTES": str(SEGMENT_BYTES)} | short | settings)


class Client:
    """A client and worker, in batches."""

    def __init__(self, server: Served) -> None:
        self.server = server
        self._client, self._worker = server.keys["client"], server.keys["worker"]
        self.waiting: list[str] = []

    def submit(self) -> tuple[int, Any]:
        jobs = {"jobs": [{"payload": PAYLOAD}] * BATCH}
        status, body = self.server.call(self._client, "POST", "/jobs/batch", jobs)
        if status == 201:
            self.waiting += body["job_ids"]
        return status, body

    def submit_until_refused(self) -> tuple[int, Any]:
        status, body = 201, None
        while status in (201, 503):  # 503: the next segment is being made
            status, body = self.submit()
            assert len(self.waiting) < 2 * DISK_BYTES // len(PAYLOAD), "the disk never got full"
        return status, body

    def lease(self, limit: int) -> list[Any]:
        status, body = self.server.call(self._worker, "POST", "/jobs/lease", {"max": limit})
        assert status == 200, body
        leased: list[Any] = body["jobs"]
        return leased

    def lease_when_there_is_room(self) -> list[Any]:
        """Lease after a start: it shortens the last segment, and makes a new one of the freed space."""
        until = time.monotonic() + START_S
        while True:
            status, body = self.server.call(self._worker, "POST", "/jobs/lease", {"max": 1})
            if status == 200:
                leased: list[Any] = body["jobs"]
                return leased
            assert status == 507
            assert time.monotonic() < until, "leases are refused though a segment could be made"

    def extend(self, leased: Any) -> int:
        body = {"lease_token": leased["lease_token"], "lease_ms": 600_000}
        return self.server.call(self._worker, "POST", f"/jobs/{leased['job_id']}/extend", body)[0]

    def ack(self, leased: Any) -> int:
        body = {"lease_token": leased["lease_token"], "result": RESULT}
        status = self.server.call(self._worker, "POST", f"/jobs/{leased['job_id']}/ack", body)[0]
        self.waiting.remove(leased["job_id"])
        return status

    def states(self) -> set[str]:
        return {self.server.call(self._client, "GET", f"/jobs/{job_id}")[1]["state"] for job_id in self.waiting}


def until_reserve_is_made(disk: Path, server: Served) -> None:
    until = time.monotonic() + 30
    while len(list((disk / "data").glob("segment-*"))) < 1 + RESERVE_SEGMENTS:
        assert time.monotonic() < until, "the reserve is not made"
        assert server.call(None, "GET", "/ready")[0] == 200


def finish_jobs(client: Client) -> None:
    """Lease and ack jobs until the server has room for others."""
    until = time.monotonic() + 30
    while client.server.call(None, "GET", "/ready")[0] != 200:
        assert time.monotonic() < until, f"no room, though but {len(client.waiting)} jobs are left"
        for leased in client.lease(BATCH) if client.waiting else []:
            assert client.ack(leased) == 200


def empty_segments(disk: Path) -> int:
    """How many segments hold no frame: the reserve."""
    return sum(not any(path.read_bytes()[4096:]) for path in (disk / "data").glob("segment-*"))


@pytest.mark.parametrize("slack", ["1MiB", "256MiB"])
@pytest.mark.parametrize("zero", ["false", "true"])
def test_a_full_disk_refuses_submits_until_the_cleaner_frees_room(small_disk: Path, slack: str, zero: str) -> None:
    """Also with more slack than the disk has: a full disk has none."""
    with served(small_disk, WAL_SLACK_BYTES=slack, WAL_ZERO_CLEANED=zero) as server:
        client = Client(server)
        status, body = client.submit_until_refused()
        assert (status, body["code"]) == (507, "disk_full")
        assert empty_segments(small_disk) == RESERVE_SEGMENTS
        assert server.call(None, "GET", "/ready")[0] == 503
        accepted = len(client.waiting)
        assert accepted * len(PAYLOAD) > DISK_BYTES - (READY_SEGMENTS + 1) * SEGMENT_BYTES, "the disk was not used"
        until = time.monotonic() + 30
        while server.call(None, "GET", "/ready")[0] != 200:
            assert time.monotonic() < until, f"no room, though but {len(client.waiting)} of {accepted} jobs are left"
            for leased in client.lease(BATCH) if client.waiting else []:
                assert client.extend(leased) == 200
                assert client.ack(leased) == 200
        assert client.submit()[0] == 201
        assert client.submit_until_refused()[0] == 507, "and again"
        assert client.states() == {"READY"}
        server.kill()
        server.start()
        assert client.states() == {"READY"}
        assert sum(path.stat().st_size for path in (small_disk / "data").iterdir()) <= DISK_BYTES


@pytest.mark.parametrize("disk_mib", [70, 80, 100])
def test_a_disk_gets_full_while_the_segments_are_small(tmp_path: Path, disk_mib: int) -> None:
    """The reserve is whole, and the cleaner frees room."""
    with mounted(tmp_path / "disk", disk_mib << 20) as disk, served(disk, WAL_SEGMENT_BYTES="64MiB") as server:
        client = Client(server)
        assert client.submit_until_refused()[0] == 507
        assert empty_segments(disk) == RESERVE_SEGMENTS
        finish_jobs(client)
        assert client.states() <= {"READY"}


def test_large_batches_that_come_at_once_leave_the_reserve_on_a_small_disk(tmp_path: Path) -> None:
    """It has no room for the segment after the reserve, until another file goes."""
    with mounted(tmp_path / "disk", 90 << 20) as disk, served(disk, WAL_SEGMENT_BYTES="64MiB") as server:
        until_reserve_is_made(disk, server)
        (disk / "other").write_bytes(bytes(36 << 20))
        batch = {"jobs": [{"payload": "p" * 800_000}] * 10}
        client = Client(server)
        with ThreadPoolExecutor(4) as threads:
            asked = [threads.submit(server.call, server.keys["client"], "POST", "/jobs/batch", batch) for _ in range(4)]
            answers = [ask.result() for ask in asked]
        for status, body in answers:
            assert status in (201, 507), body
            client.waiting += body.get("job_ids", [])
        assert 10 <= len(client.waiting) < 40
        assert empty_segments(disk) == RESERVE_SEGMENTS
        for leased in client.lease(BATCH):
            assert client.ack(leased) == 200
        (disk / "other").unlink()
        finish_jobs(client)
        assert client.submit()[0] == 201
        assert client.states() == {"READY"}


@pytest.mark.parametrize("disk_mib", [70, 100])
def test_a_server_starts_again_on_a_disk_that_is_full_while_the_segments_are_small(
    tmp_path: Path, disk_mib: int
) -> None:
    with mounted(tmp_path / "disk", disk_mib << 20) as disk, served(disk, WAL_SEGMENT_BYTES="64MiB") as server:
        client = Client(server)
        assert client.submit_until_refused()[0] == 507
        for _ in range(6):
            server.kill()
            server.start()
            (leased,) = client.lease_when_there_is_room()
            assert client.ack(leased) == 200
        assert client.states() == {"READY"}
        if disk_mib >= 100:  # a disk with room for five segments does not stay full
            finish_jobs(client)
            assert client.states() <= {"READY"}
        assert server.stop() == 0


def test_a_server_starts_again_on_the_disk_that_it_filled(small_disk: Path) -> None:
    with served(small_disk) as server:
        client = Client(server)
        assert client.submit_until_refused()[0] == 507
        for _ in range(6):
            server.kill()
            server.start()
            (leased,) = client.lease_when_there_is_room()
            assert client.ack(leased) == 200
        assert client.states() == {"READY"}
        assert server.stop() == 0


@pytest.mark.parametrize("outcome", ["release", "snooze"])
@pytest.mark.parametrize("disk_segments", [4.2, 7.5])
def test_garbage_does_not_fill_a_disk_for_ever(tmp_path: Path, outcome: str, disk_segments: float) -> None:
    """Few jobs, leased again and again, on a disk that is full from the first segments on."""
    with mounted(tmp_path / "disk", int(disk_segments * SEGMENT_BYTES)) as disk, served(disk) as server:
        client, worker = server.keys["client"], server.keys["worker"]
        jobs = {"jobs": [{"payload": "p" * 200, "max_retries": 1000}] * 500}
        assert server.call(client, "POST", "/jobs/batch", jobs)[0] == 201
        acks: list[dict[str, Any]] = []
        done, last_s = 0, time.monotonic()
        while done * ROUND_BYTES < 2 * DISK_BYTES:
            if acks:
                status, _ = server.call(worker, "POST", "/jobs/ack", {"acks": acks})
                done, acks = (done + len(acks), []) if status == 200 else (done, acks)
            else:
                status, leased = server.call(worker, "POST", "/jobs/lease", {"max": 500, "worker_id": "w" * 200})
                extra = {"delay_ms": 0} if outcome == "snooze" else {}
                for one in leased["jobs"] if status == 200 else []:
                    acks.append(
                        {"job_id": one["job_id"], "lease_token": one["lease_token"], "outcome": outcome, **extra}
                    )
            last_s = time.monotonic() if status == 200 else last_s
            assert time.monotonic() - last_s < 20, f"refused for ever: {status}"
        server.kill()
        server.start()
        until = time.monotonic() + 20
        while server.call(client, "POST", "/jobs", {"payload": "x"})[0] != 201:
            assert time.monotonic() < until, "submits are refused for ever"
