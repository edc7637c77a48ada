"""A command that reads a data directory writes nothing, and one that changes it writes its own change alone.

The directory is of a server that was killed: it has a torn tail, leases that ran out, jobs that retention would remove
under the settings of the shell, schedules that are due and idempotency keys whose window is over.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.log.files.frames import HEAD_BYTES, change, read_segment
from tests.served import END_S, ROOT, Served
from tests.server.test_start_refused import QUICK

pytestmark = pytest.mark.slow

EAGER = {
    "RETENTION_ACKED": "0s", "RETENTION_DEAD": "0s", "IDEMPOTENCY_WINDOW": "1m", "MAX_FINISHED_JOBS": "0",
    "LEASE_CHECK_INTERVAL": "10ms", "WAL_SLACK_BYTES": "1MiB", "WAL_SEGMENT_BYTES": "8MiB",
}  # fmt: skip


def run(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FASTQ_")} | settings
    return subprocess.run(
        [sys.executable, "-m", "fastq", *words], cwd=ROOT, env=environ, capture_output=True, text=True,
        timeout=END_S, check=False,
    )  # fmt: skip


def hash_of(directory: Path) -> dict[str, str]:
    """Each file and directory by name: its content, mode, and when it was changed."""
    return {
        str(path.relative_to(directory)): (
            f"{path.stat().st_mode:o} {path.stat().st_mtime_ns} "
            + (sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        )
        for path in [directory, *sorted(directory.rglob("*"))]
    }


def records_of(directory: Path) -> list[Any]:
    """All records, without where they are. An opening writes the last frame again, which counts once."""
    done = run("log", "dump", str(directory), "--json")
    assert done.returncode == 0, done.stderr
    by_frame: dict[int, dict[str, Any]] = {}
    for line in map(json.loads, done.stdout.splitlines()):
        if line["type"] != "frame" and "seq" in line:
            by_frame.setdefault(line.pop("seq"), {})[json.dumps(line)] = line
    return [record for _, records in sorted(by_frame.items()) for record in records.values()]


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    with Served(directory, **QUICK, RETENTION_ACKED="720h", RETENTION_DEAD="720h") as server:
        client, worker = server.keys["client"], server.keys["worker"]
        for n in range(5):
            server.submit(client, n, idempotency_key=f"k{n}", **({} if n else {"expires_ms": 1}))
        for _ in range(3):
            status, job = server.call(worker, "POST", "/jobs/lease", {"lease_ms": 1000})
            assert status == 200
        acked, _ = server.call(worker, "POST", f"/jobs/{job['job_id']}/ack", {"lease_token": job["lease_token"]})
        put, _ = server.call(server.keys["admin"], "PUT", "/schedules/s", {"cron": "* * * * *", "job": {"payload": 1}})
        assert (acked, put) == (200, 200)
        server.kill()
    last = [path for path in sorted(directory.glob("segment-*")) if read_segment(path).frames][-1]
    end = read_segment(last).frames[-1]
    change(last, end.offset + HEAD_BYTES + end.record_bytes + 8192 & ~4095, b"torn" * 100)
    return directory


READERS = [
    ("keys", "list", "--offline", "{}"),
    ("keys", "list", "--offline", "{}", "--json"),
    ("log", "check", "{}"),
    ("log", "check", "{}", "--json"),
    ("log", "dump", "{}", "--json"),
    ("log", "repair", "{}", "--truncate-at", "4"),
    ("backup", "--offline", "{}", "{}/../copy.tar"),
    ("--version",),
]
REFUSED = [
    ("keys", "create", "--offline", "{}", "--name", "n", "--owner", "o", "--type", "nonsense"),
    ("keys", "revoke", "no-such-key", "--offline", "{}"),
    ("keys", "rotate", "no-such-key", "--offline", "{}"),
]


@pytest.mark.parametrize("words", READERS, ids=" ".join)
def test_a_command_that_reads_writes_nothing(killed: Path, words: tuple[str, ...]) -> None:
    before = hash_of(killed)
    done = run(*(word.replace("{}", str(killed)) for word in words), **EAGER)
    assert done.returncode in (0, 1, 65), done.stderr
    assert hash_of(killed) == before


def test_a_list_shows_the_keys(killed: Path) -> None:
    done = run("keys", "list", "--offline", str(killed), "--json", **EAGER)
    assert sorted(json.loads(line)["type"] for line in done.stdout.splitlines()) == ["admin", "client", "worker"]


def test_a_change_of_keys_appends_its_own_records_alone(killed: Path) -> None:
    before = records_of(killed)
    made = run("keys", "create", "--offline", str(killed), "--name", "n", "--owner", "o", "--type", "client", "--json",
               **EAGER)  # fmt: skip
    assert made.returncode == 0, made.stderr
    after = records_of(killed)
    assert after[: len(before)] == before
    added = after[len(before) :]
    assert [record["type"] for record in added] == ["DOCUMENT"], added
    assert added[0]["kind"] == 1
    gone = run("keys", "revoke", json.loads(made.stdout)["key_id"], "--offline", str(killed), **EAGER)
    assert gone.returncode == 0, gone.stderr
    assert [record["type"] for record in records_of(killed)[len(after) :]] == ["DOCUMENT"]


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_a_change_that_is_refused_appends_nothing(killed: Path, words: tuple[str, ...]) -> None:
    before = records_of(killed)
    done = run(*(word.replace("{}", str(killed)) for word in words), **EAGER)
    assert done.returncode == 1, done.stderr
    assert records_of(killed) == before, records_of(killed)[len(before) :]


def test_a_list_of_a_running_server_is_refused(tmp_path: Path) -> None:
    with Served(tmp_path / "data", **QUICK):
        done = run("keys", "list", "--offline", str(tmp_path / "data"))
        assert done.returncode == 75 and "stop the server first" in done.stderr


def test_a_list_of_an_empty_directory_is_refused_and_leaves_it_empty(tmp_path: Path) -> None:
    done = run("keys", "list", "--offline", str(tmp_path))
    assert done.returncode == 74 and "holds no log" in done.stderr
    assert not list(tmp_path.iterdir())
