"""A whole server over a disk with one byte that changed, or one place that it cannot read: only that job suffers."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_faulty_disk import Faulty, library  # noqa: F401
from tests.log.files.bad_disk import change_byte
from tests.served import ROOT

pytestmark = pytest.mark.slow

JOBS = 100
BAD = 40


def place_of(directory: Path, text: bytes) -> tuple[Path, int]:
    """The segment and offset where these bytes are."""
    (found,) = [
        (path, path.read_bytes().index(text)) for path in directory.glob("segment-*") if text in path.read_bytes()
    ]
    return found


def break_text(server: Faulty, kind: str, text: bytes) -> None:
    path, offset = place_of(server.directory, text)
    if kind == "rot":
        change_byte(path, offset + len(text) - 3)
    else:
        Path(f"{server._prefix}.read").write_text(f"{offset} {offset + len(text)}")


def lease(server: Faulty, count: int) -> tuple[list[Any], str]:
    """Over one connection, so that the second request takes the short way. Returns the jobs and the request's id."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    jobs: list[Any] = []
    try:
        for limit in (1, count):
            connection.request(
                "POST", "/jobs/lease", json.dumps({"max": limit}), {"Authorization": f"Bearer {server.keys['worker']}"}
            )
            answer = connection.getresponse()
            assert answer.status == 200
            jobs += json.loads(answer.read())["jobs"]
        return jobs, str(answer.getheader("X-Request-Id"))
    finally:
        connection.close()


def command(server: Faulty, key: str, *words: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"FASTQ_URL": f"http://127.0.0.1:{server.port}", "FASTQ_KEY": server.keys[key]}
    return subprocess.run(
        [sys.executable, "-m", "fastq", *words], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )


@pytest.fixture(params=["rot", "bad sector"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_one_unreadable_payload_of_a_hundred(tmp_path: Path, library: Path, kind: str) -> None:  # noqa: F811
    with Faulty(tmp_path / "data", library, PAYLOAD_CACHE_BYTES="0") as server:
        client = server.keys["client"]
        jobs = [{"payload": {"n": n}} for n in range(JOBS)]
        status, stored = server.call(client, "POST", "/jobs/batch", {"jobs": jobs})
        assert status == 201
        break_text(server, kind, b'{"n": %d}' % BAD)
        bad_id = stored["job_ids"][BAD]
        status, refused = server.call(client, "GET", f"/jobs/{bad_id}?include=payload")
        assert (status, refused["code"]) == (500, "record_unreadable")
        assert bad_id in server.stderr
        status, page = server.call(client, "GET", "/jobs?q=n&limit=1000")
        assert (status, len(page["jobs"]), page["unreadable"]) == (200, JOBS - 1, 1)
        jobs, request_id = lease(server, JOBS)
        assert [job["payload"]["n"] for job in jobs] == [n for n in range(JOBS) if n != BAD]
        status, dead = server.call(client, "GET", f"/jobs/{bad_id}")
        assert (status, dead["state"], dead["outcome"], dead["attempts"]) == (200, "DEAD", "unreadable", 0)
        assert "cannot be read" in dead["result_error"]
        assert any(bad_id in line and request_id in line for line in server.stderr.splitlines())
        status, queue = server.call(client, "GET", "/jobs?state=DEAD")
        assert [job["job_id"] for job in queue["jobs"]] == [bad_id]

        exported = command(server, "admin", "export")
        assert exported.returncode == 1 and bad_id in exported.stderr
        assert len(exported.stdout.splitlines()) == JOBS - 1
        kept = command(server, "admin", "backup", str(tmp_path / "copy.tar"))
        if kind == "rot":  # the backup reads in another way, which the library does not break
            assert kept.returncode != 0 and "fastq log check" in server.stderr, (kept.stderr, server.stderr)
            assert not list(tmp_path.glob("copy*"))
        assert server.stop() == 0
