"""What the SDK says: names, refusals, and answers that print and encode."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.encoders import jsonable_encoder

import fastq
from fastq import Cron, Forbidden, JobOptions, JobStatus, NewJob, Progress
from tests.client.served import Made


def test_names_that_people_look_for() -> None:
    assert {"Client", "Progress", "JobOptions", "NotJSON"} <= set(dir(fastq))
    assert JobOptions.__total__ is False


def test_an_option_that_is_none_is_not_given(both: Any, queue: str) -> None:
    options: JobOptions = {"queue": queue, "idempotency_key": None, "delay_ms": None, "tags": None}
    job = both.get(both.submit("x", **options).job_id)
    assert (job.state, job.max_retries) == ("READY", 3)
    assert both.submit_many([NewJob(payload=1, queue=queue, unique_key=None)])[0].job_id


def test_max_attempts_is_max_retries(both: Any, queue: str) -> None:
    assert both.get(both.submit("x", queue=queue, max_attempts=7).job_id).max_retries == 7
    with pytest.raises(ValueError, match="the same option"):
        both.submit("x", max_attempts=7, max_retries=3)


def test_a_time_needs_a_zone(both: Any) -> None:
    for name in ("run_at", "expires_at"):
        with pytest.raises(ValueError, match=f"{name} needs a time zone"):
            both.submit("x", **{name: datetime(2030, 1, 1)})
    with pytest.raises(fastq.BadRequest, match="run_at must be an RFC 3339 time: it needs a time zone"):
        both.edit("00000000-0000-7000-8000-000000000000", run_at=datetime(2030, 1, 1))


def test_a_schedule_needs_a_cron(both: Any) -> None:
    with pytest.raises(TypeError, match=r"cron must be a fastq\.Cron"):
        both.put_schedule("s", "0 3 * * *", "x")


def test_a_refusal_names_the_missing_scope(made: Made) -> None:
    with pytest.raises(Forbidden) as refused:
        made(key="client").lease(["q"])
    assert (refused.value.message, refused.value.scope) == ("Insufficient permissions", "jobs:lease")
    assert "the key lacks the scope jobs:lease" in str(refused.value)


def test_answers_print_and_encode(both: Any, queue: str) -> None:
    job_id = both.submit({"a": 1}, queue=queue).job_id
    (leased,) = both.lease([queue])
    both.progress(leased, 50, "half")
    job: JobStatus = both.get(job_id, with_payload=True)
    assert jsonable_encoder(job)["payload"] == {"a": 1}
    assert jsonable_encoder(job.progress)["percent"] == 50
    assert jsonable_encoder(Progress(1, "n", datetime.now(UTC)))["note"] == "n"
    json.dumps(jsonable_encoder([both.get_queue(queue), both.history(job_id), both.workers()]))
    both.put_schedule(queue[:30], Cron("0 0 1 1 *"), {"report": 1}, queue=queue)
    schedule = both.get_schedule(queue[:30])
    assert "'report': 1" in repr(schedule) and "Raw" not in repr(schedule) + repr(job)
    both.delete_schedule(queue[:30])
    assert leased.lease_token not in repr(job) + repr(leased)
