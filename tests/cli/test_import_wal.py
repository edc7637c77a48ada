"""`fastq import-wal`: logs of the original server, imported into a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastq.cli.original_wal import in_batches, replayed
from fastq.client.sync_client import Client
from tests.served import END_S, ROOT, Served

pytestmark = pytest.mark.slow


def line(job_id: str, event: str, **metadata: Any) -> bytes:
    fields = {"job_id": job_id, "event": event, "timestamp": 1700000000, "metadata": metadata}
    return json.dumps(fields).encode() + b"\n"


def created(job_id: str, payload: Any = "p", max_retries: int = 3) -> bytes:
    return line(job_id, "JOB_CREATED", payload=payload, max_retries=max_retries)


LEASED, AGAIN = {"attempts": 1, "lease_until": 1700000030}, {"attempts": 1}
WAL = b"".join((
    created("ready", {"mail": "ann", "n": 123456789012345678901234567890}),
    created("running"), created("retried"), created("acked"), created("dead", max_retries=1), created("last"),
    line("running", "JOB_LEASED", **LEASED),
    line("retried", "JOB_LEASED", **LEASED), line("retried", "JOB_RETRY", **AGAIN),
    line("acked", "JOB_LEASED", **LEASED), line("acked", "JOB_ACKED", result="done", result_error=""),
    line("dead", "JOB_LEASED", **LEASED), line("dead", "JOB_DEAD", attempts=1, result_error="broken"),
))  # fmt: skip
UNFINISHED = ["ready", "running", "retried", "last"]


@pytest.fixture
def wal(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.wal"
    path.write_bytes(WAL)
    return path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path / "data") as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{served.port}", served.keys["admin"]) as client:
        yield client


def imported(served: Served | None, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the import with a client key, which suffices."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FASTQ_")}
    if served is not None:
        environ |= {"FASTQ_URL": f"http://127.0.0.1:{served.port}", "FASTQ_KEY": served.keys["client"]}
    command = (sys.executable, "-m", "fastq", "import-wal", *map(str, arguments))
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=END_S, check=False)


def taken(client: Client, queue: str = "default") -> list[Any]:
    return client.lease([queue], limit=100)


def originals(jobs: list[Any]) -> list[str]:
    return [job.tags[0].removeprefix("original:") for job in jobs]


def test_unfinished_jobs_are_submitted(wal: Path, served: Served, client: Client) -> None:
    done = imported(served, wal)
    assert done.returncode == 0, done.stderr
    assert "submitted 4 jobs to queue default, 0 already there, 0 refused, 2 finished ones skipped" in done.stdout
    jobs = taken(client)
    assert originals(jobs) == UNFINISHED, "in the order in which they were created"
    by_name = dict(zip(UNFINISHED, jobs, strict=True))
    assert bytes(by_name["ready"].payload_json) == b'{"mail": "ann", "n": 123456789012345678901234567890}'
    assert [by_name[name].max_retries for name in UNFINISHED] == [3, 2, 2, 3], "what is left of their attempts"


def test_a_repeated_import_changes_nothing(wal: Path, served: Served, client: Client) -> None:
    assert imported(served, wal).returncode == 0
    again = imported(served, wal)
    assert "submitted 0 jobs to queue default, 4 already there" in again.stdout
    wal.with_name("jobs.wal.imported").unlink()
    without_map = imported(served, wal)
    assert "submitted 0 jobs to queue default, 4 already there" in without_map.stdout
    assert originals(taken(client)) == UNFINISHED


def test_a_torn_map_is_continued(wal: Path, served: Served, client: Client) -> None:
    assert imported(served, wal).returncode == 0
    path = wal.with_name("jobs.wal.imported")
    path.write_bytes(path.read_bytes()[:-10])
    assert "submitted 0 jobs" in imported(served, wal).stdout
    entries = [json.loads(text) for text in path.read_text().splitlines()]
    assert [entry["original"] for entry in entries] == UNFINISHED
    assert [entry["job_id"] for entry in entries] == [job.job_id for job in taken(client)]


def test_a_file_that_is_not_a_map_is_not_changed(wal: Path, served: Served) -> None:
    done = imported(served, wal, "--map", wal)
    assert done.returncode == 1
    assert "line 1 is not an entry of a map" in done.stderr
    assert wal.read_bytes() == WAL


def test_a_job_that_changed_since_is_not_doubled(wal: Path, served: Served, client: Client) -> None:
    assert imported(served, wal).returncode == 0
    wal.with_name("jobs.wal.imported").unlink()
    wal.write_bytes(WAL + line("ready", "JOB_LEASED", **LEASED) + created("new"))
    done = imported(served, wal)
    assert "submitted 1 jobs to queue default, 4 already there" in done.stdout
    assert originals(taken(client)) == [*UNFINISHED, "new"]


def test_dry_run(wal: Path, client: Client) -> None:
    done = imported(None, wal, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "13 lines, 6 jobs: ACKED 1, DEAD 1, READY 2, RETRY 1, RUNNING 1" in done.stdout
    assert "would submit 4 jobs to queue default" in done.stdout
    assert [path.name for path in wal.parent.iterdir() if path.name.startswith("jobs.wal")] == ["jobs.wal"]
    assert taken(client) == []


def test_dead_jobs_are_submitted_and_finished_jobs_archived_on_request(
    wal: Path, served: Served, client: Client
) -> None:
    archive = wal.with_name("archive")
    done = imported(served, wal, "--dead", "submit", "--archive", archive, "--queue", "old")
    assert "submitted 5 jobs to queue old" in done.stdout
    assert sorted(originals(taken(client, "old"))) == sorted([*UNFINISHED, "dead"])
    acked, dead = (json.loads(text) for text in archive.read_text().splitlines())
    assert (acked["job_id"], acked["state"], acked["result"]) == ("acked", "ACKED", "done")
    assert (dead["job_id"], dead["state"], dead["result_error"]) == ("dead", "DEAD", "broken")


def test_a_torn_last_line_is_skipped(wal: Path, served: Served, client: Client) -> None:
    wal.write_bytes(WAL + created("torn")[:-30])
    done = imported(served, wal)
    assert done.returncode == 0
    assert "line 14 is incomplete" in done.stderr
    assert originals(taken(client)) == UNFINISHED


def test_damaged_lines_are_reported_and_the_rest_submitted(wal: Path, served: Served, client: Client) -> None:
    lines = WAL.splitlines(keepends=True)
    lines[1:1] = [b"{\n", b"\xff\n", line("x", "JOB_SOLD"), line("lost", "JOB_LEASED"), created("empty", "")]
    wal.write_bytes(b"".join(lines))
    done = imported(served, wal)
    assert done.returncode == 1
    told = [text for text in done.stderr.splitlines() if text.startswith("damaged: line ")]
    assert [text.split()[2] for text in told] == ["2:", "3:", "4:", "5:", "6:"]
    assert originals(taken(client)) == UNFINISHED


def test_a_refused_job_is_reported(tmp_path: Path, served: Served, client: Client) -> None:
    path = tmp_path / "big.wal"
    path.write_bytes(created("big", "x" * (1 << 20)) + created("small"))
    done = imported(served, path)
    assert done.returncode == 1
    assert "refused: job big: " in done.stderr
    assert originals(taken(client)) == ["small"]


def test_an_unreachable_server(wal: Path) -> None:
    environ = os.environ | {"FASTQ_KEY": "client_x", "FASTQ_URL": "http://127.0.0.1:1"}
    command = (sys.executable, "-m", "fastq", "import-wal", str(wal))
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 3
    assert "no connection to 127.0.0.1:1" in done.stderr


# --- the log by itself ------------------------------------------------------------------------------------------------


def test_metadata_may_be_in_the_line_itself() -> None:
    text = b'{"job_id": "a", "event": "JOB_CREATED", "timestamp": 1, "payload": "p", "max_retries": 5}\n'
    job = replayed([text]).jobs["a"]
    assert (bytes(job.payload), job.max_retries, job.created_s) == (b'"p"', 5, 1)


@pytest.mark.parametrize(("max_retries", "attempts", "left"), [(0, 0, 0), (3, 0, 3), (3, 1, 2), (3, 3, 1), (3, 7, 1)])
def test_runs_left(max_retries: int, attempts: int, left: int) -> None:
    leases = [line("a", "JOB_LEASED", attempts=n + 1) for n in range(attempts)]
    assert replayed([created("a", max_retries=max_retries), *leases]).jobs["a"].runs_left == left


def test_attempts_are_counted_from_leases() -> None:
    leases = [line("a", "JOB_LEASED"), line("a", "JOB_RETRY"), line("a", "JOB_LEASED")]
    assert replayed([created("a"), *leases]).jobs["a"].attempts == 2


def test_batches() -> None:
    jobs = list(replayed(created(str(n), "x" * 10) for n in range(5)).jobs.values())
    assert [len(batch) for batch in in_batches(jobs, 2, 1000)] == [2, 2, 1]
    assert [len(batch) for batch in in_batches(jobs, 100, 24)] == [2, 2, 1]
    assert [len(batch) for batch in in_batches(jobs, 100, 1)] == [1] * 5


# --- what a job here has in another form ------------------------------------------------------------------------------


def test_priority_and_time_are_carried_over(tmp_path: Path, served: Served, client: Client) -> None:
    path = tmp_path / "jobs.wal"
    path.write_bytes(
        line("a", "JOB_CREATED", payload="a", priority=7, run_at="2031-02-03T04:05:06.5+01:00")
        + line("b", "JOB_CREATED", payload="b", priority=-3, run_at="0001-01-01T00:00:00Z")
        + line("c", "JOB_CREATED", payload="c", max_retries=2)
        + line("c", "JOB_RETRY", attempts=1, run_at=1900000000.25)
    )
    done = imported(served, path)
    assert done.returncode == 0, done.stderr
    assert "not carried over" not in done.stderr
    jobs = {job.tags[0]: job for job in client.list_jobs().items}
    assert jobs["original:a"].priority == 7
    assert str(jobs["original:a"].run_at) == "2031-02-03 03:05:06.500000+00:00"
    assert (jobs["original:b"].priority, jobs["original:b"].state) == (-3, "READY")
    assert jobs["original:c"].run_at.timestamp() == 1900000000.25


def test_what_is_not_carried_over_is_named(tmp_path: Path, served: Served, client: Client) -> None:
    path = tmp_path / "jobs.wal"
    path.write_bytes(
        line("a", "JOB_CREATED", payload="a", max_retries=5000, callback_url="http://x", group="g")
        + line("b", "JOB_CREATED", payload="b", callback_url="http://y", priority=2**40, run_at="tomorrow")
        + json.dumps({"job_id": "c", "event": "JOB_CREATED", "payload": "c", "shard": 3}).encode() + b"\n"
    )  # fmt: skip
    for dry in ([], ["--dry-run"]):
        done = imported(served, path, *dry)
        assert done.returncode == 0, done.stderr
        for text in (
            "callback_url (2 lines)",
            "group (1 lines)",
            "priority 1099511627776",
            'run_at "tomorrow"',
            "shard",
        ):
            assert f"not carried over: {text}" in done.stderr
        assert "max_retries becomes 1,000" in done.stderr
    jobs = {job.tags[0]: job for job in client.list_jobs().items}
    assert len(jobs) == 3
    assert jobs["original:a"].max_retries == 1000
