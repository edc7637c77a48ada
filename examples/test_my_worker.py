"""Test a worker with the real server in memory and a clock that only the test moves."""

from __future__ import annotations

import fastq
from fastq.testing import Server

worker = fastq.Worker()


@worker.handles("mail")
def send(job: fastq.Job[str]) -> str:
    if job.attempt == 1:
        raise ConnectionError("the mail server is away")
    return f"sent to {job.payload}"


def test_mail_is_sent_at_the_second_try() -> None:
    with Server() as server, server.client() as client:
        job_id = client.submit("ann@example.org", queue="mail", delay_ms=60_000).job_id
        server.work(worker)
        assert client.get(job_id).state == "SCHEDULED"
        server.advance(60)
        server.work(worker)
        assert client.get(job_id).error == "ConnectionError: the mail server is away"
        server.advance(1)
        server.work(worker)
        assert client.get(job_id).result == "sent to ann@example.org"
