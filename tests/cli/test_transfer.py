"""`fastq export` and `fastq import`: between servers, repeated, and with invalid lines."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from fastq import Client, JobStatus, NewJob
from tests.cli.conftest import Run
from tests.client.served import Place
from tests.served import Served

pytestmark = pytest.mark.slow


def test_jobs_move_to_another_server(run: Run, client: Client, queue: str, tmp_path: Path) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    jobs = [NewJob(payload={"n": n}, queue=queue, priority=n % 3, tags=["t"], group="g") for n in range(1_500)]
    ids = [one.job_id for one in client.submit_many([*jobs, NewJob(payload="late", queue=queue, run_at=at)])]
    client.cancel(ids[0])
    path = tmp_path / "jobs"
    assert run("export", "--queue", queue, "-o", str(path)).err == "1,501 jobs\n"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["job_id"] for line in lines] == ids, "the oldest first"
    assert lines[0]["state"] == "CANCELLED" and lines[1]["payload"] == {"n": 1}
    with Served(tmp_path / "other") as server:
        there = {"FASTQ_URL": f"http://127.0.0.1:{server.port}", "key": server.keys["admin"]}
        assert run("import", str(path), **there).out == "1,500 submitted, 0 already there\n"
        with Client(there["FASTQ_URL"], there["key"]) as other:
            imported = [other.get(job.job_id, with_payload=True) for job in other.jobs()][::-1]
            assert [job.payload for job in imported] == [line["payload"] for line in lines[1:]]
            assert [job.priority for job in imported] == [line["priority"] for line in lines[1:]]
            assert (imported[0].group, imported[0].tags) == ("g", ("t",)) and imported[-1].run_at == at
            assert run("import", str(path), **there).out == "0 submitted, 1,500 already there\n"
            server.kill()
            server.start()
            there["FASTQ_URL"] = f"http://127.0.0.1:{server.port}"
            assert run("import", stdin=path.read_text(), **there).out == "0 submitted, 1,500 already there\n"
            assert run("import", str(path), "--state", "cancelled", **there).out.startswith("1 submitted, ")


def test_a_changed_job_is_not_doubled(run: Run, client: Client, queue: str) -> None:
    """Import a changed job again while the first import waits: the unique key prevents a double."""
    line = {"job_id": "01a20cc7-8ec2-7154-8000-000000469c9a", "state": "READY", "payload": 1, "queue": queue}
    assert run("import", stdin=json.dumps(line)).out == "1 submitted, 0 already there\n"
    assert run("import", stdin=json.dumps(line | {"priority": 5})).out == "0 submitted, 1 already there\n"
    assert len(list(client.jobs(queue=queue))) == 1


def test_every_member_of_an_exported_job_is_known(run: Run, client: Client, queue: str) -> None:
    """Those of a failed attempt, too: a waiting job has them while it is retried."""
    members = dict.fromkeys(field.encode_name for field in msgspec.structs.fields(JobStatus))
    line = members | {"job_id": "01a20cc7-8ec2-7154-8000-000000469c9b", "state": "RETRY", "payload": 1, "queue": queue}
    assert run("import", stdin=json.dumps(line)).out == "1 submitted, 0 already there\n"
    assert [job.state for job in client.jobs(queue=queue)] == ["READY"]


def test_import_handwritten_lines(run: Run, client: Client, queue: str) -> None:
    text = '{"payload": 1}\n\n{"payload": 1}\n{"payload": {"a":  "b"}, "delay_ms": 60000}\n'
    assert run("import", "--queue", queue, stdin=text).out == "3 submitted, 0 already there\n"
    assert run("import", "--queue", queue, stdin=text).out == "0 submitted, 3 already there\n"
    assert [job.state for job in client.jobs(queue=queue)] == ["SCHEDULED", "READY", "READY"]


def test_an_invalid_line_is_reported(run: Run, client: Client, queue: str) -> None:
    for text, message in (
        (
            '{"payload": 1}\n{"payload": 2, "prority": 1}\n',
            "line 2 is not a job: Object contains unknown field `prority`",
        ),
        ('{"payload": 1}\nnothing\n', "line 2 is not a job"),
        ('{"queue": "a"}\n', "line 1 is not a job: Object missing required field `payload`"),
    ):
        done = run("import", "--queue", queue, stdin=text)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1) and message in done.err
    refused = run("import", "--queue", queue, stdin='{"payload": 1}\n\n{"payload": 1, "max_retries": -1}\n')
    assert refused.code == 1
    assert "lines 1 to 3, none submitted: jobs[1]" in refused.err
    assert list(client.jobs(queue=queue)) == []


def test_an_export_without_jobs(run: Run, place: Place, queue: str) -> None:
    done = run("export", "--queue", queue)
    assert (done.code, done.out, done.err) == (0, "", "0 jobs\n")
