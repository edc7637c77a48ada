"""A whole server on a failing disk: it answers only for durable work, and answered work stays.

FASTQ_FAULT_STEP=1 fails every write of a server's life (the default fails every third, and every sync).
"""

from __future__ import annotations

import http.client
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.served import Ended, Served

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).with_name("faulty_disk.c")
SMALL = {"WAL_SEGMENT_BYTES": "4MiB", "LEASE_CHECK_INTERVAL": "50ms"}
FAILED, IO_ERROR = 70, 74
STEP = int(os.environ.get("FASTQ_FAULT_STEP", "3"))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("faulty") / "faulty_disk.so"
    subprocess.run(["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", SOURCE, "-o", made, "-ldl"], check=True)
    return made


class Faulty(Served):
    """A server whose disk fails between `fail(what)` and `heal(what)`."""

    def __init__(self, directory: Path, library: Path, **settings: str) -> None:
        self._prefix = directory.with_name("fault")
        preload = f"{os.environ.get('LD_PRELOAD', '')} {library}".strip()  # after a sanitizer's, if there is one
        faults = {"LD_PRELOAD": preload, "FAULTY_DISK": str(self._prefix)}
        super().__init__(directory, **SMALL, **faults, **settings)

    def fail(self, what: str) -> None:
        Path(f"{self._prefix}.{what}").touch()

    def heal(self, what: str) -> None:
        Path(f"{self._prefix}.{what}").unlink()

    @property
    def fired(self) -> bool:
        return Path(f"{self._prefix}.fired").exists()


@pytest.mark.parametrize("what", ["sync", "write"])
def test_a_commit_that_fails_is_not_answered_and_ends_the_server(tmp_path: Path, library: Path, what: str) -> None:
    with Faulty(tmp_path / "data", library) as server:
        key = server.keys["client"]
        kept = [server.submit(key, number) for number in range(10)]
        server.fail(what)
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            server.submit(key, "never")
        assert server.wait(10) == FAILED
        assert "CRITICAL fastq.server: the log failed, exiting" in server.stderr
        server.heal(what)
        server.start()
        for job_id in kept:
            assert server.call(key, "GET", f"/jobs/{job_id}")[1]["state"] == "READY"
        server.submit(key, "again")
        assert server.stop() == 0


def test_a_full_disk_refuses_submits_and_takes_acks(tmp_path: Path, library: Path) -> None:
    with Faulty(tmp_path / "data", library) as server:
        client, worker = server.keys["client"], server.keys["worker"]
        server.submit(client, "first")
        while len(list((tmp_path / "data").glob("segment-*"))) < 4:  # the reserve is made behind the first segment
            server.call(None, "GET", "/ready")
        server.fail("full")
        large = "x" * 900_000
        answers: list[tuple[int, Any]] = []
        while not answers or answers[-1][0] == 201:
            answers.append(server.call(client, "POST", "/jobs", {"payload": large}))
            assert len(answers) < 100, "the disk never got full"
        status, body = answers[-1]
        assert (status, body["code"]) == (507, "disk_full")
        assert server.call(None, "GET", "/ready")[0] == 503
        lease = server.call(worker, "POST", "/jobs/lease", {})[1]
        assert lease["payload"] == "first"
        ack = {"lease_token": lease["lease_token"]}
        assert server.call(worker, "POST", f"/jobs/{lease['job_id']}/ack", ack)[0] == 200
        server.heal("full")
        while server.call(None, "GET", "/ready")[0] != 200:
            assert server.process.poll() is None
        last = server.submit(client, large)
        server.kill()
        server.start()
        for job_id in [body["job_id"] for status, body in answers[:-1]] + [last]:
            assert server.call(client, "GET", f"/jobs/{job_id}")[1]["state"] == "READY"
        assert server.call(client, "GET", f"/jobs/{lease['job_id']}")[1]["state"] == "ACKED"


def test_short_writes_are_continued(tmp_path: Path, library: Path) -> None:
    with Faulty(tmp_path / "data", library) as server:
        client, worker = server.keys["client"], server.keys["worker"]
        server.fail("short")
        payload = "y" * 300_000
        jobs = [server.submit(client, payload) for _ in range(10)]
        server.kill()
        server.start()
        for job_id in jobs:
            lease = server.call(worker, "POST", "/jobs/lease", {})[1]
            assert (lease["job_id"], lease["payload"]) == (job_id, payload)


@pytest.mark.parametrize(("call", "step"), [("SYNC", 1), ("WRITE", STEP)])
def test_every_failing_call_loses_no_acknowledged_job(tmp_path: Path, library: Path, call: str, step: int) -> None:
    """Fail the first sync or write of a life, then a later one, until none fails: no acknowledged job is lost."""
    for number in range(1, 200, step):
        directory = tmp_path / str(number) / "data"
        directory.parent.mkdir()
        server = Faulty(directory, library, **{f"FAULTY_{call}_AT": str(number)})
        told, code = _live(server)
        if not server.fired:
            assert code == 0
            assert number > 5, "hardly anything was tried"
            return
        assert code in (FAILED, IO_ERROR), server.stderr
        assert "Traceback" not in server.stderr
        with Served(directory, **SMALL) as again:
            for job_id in told:
                assert again.call(server.keys["client"], "GET", f"/jobs/{job_id}")[0] == 200
    pytest.fail("there was no end to it")


def _live(server: Faulty) -> tuple[list[str], int]:
    """A short life. Returns the jobs that were acknowledged, and the exit code."""
    told: list[str] = []
    try:
        with server:
            try:
                for _ in range(3):
                    told.append(server.submit(server.keys["client"]))
            except (http.client.HTTPException, ConnectionError):
                return told, server.wait(10)
            return told, server.wait(10) if server.fired else server.stop()
    except Ended as ended:
        return told, ended.code
