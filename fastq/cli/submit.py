"""`fastq submit`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import IO, Any

import click

from fastq.cli.batches import batches
from fastq.cli.job import JOB_LABEL, require_success, show_job, show_submitted
from fastq.cli.job_options import given, submit_options
from fastq.cli.notices import notice
from fastq.cli.param_types import DURATION, json_value, read_value
from fastq.cli.remote import with_client
from fastq.cli.streams import text_lines
from fastq.cli.tables import json_option, record, show
from fastq.client.models import NewJob
from fastq.client.sync_client import Client


@click.command()
@click.argument("payload", required=False)
@click.option("--text", "as_text", is_flag=True, help="PAYLOAD is a string, not JSON.")
@click.option("--lines", type=click.File("rb"), help="Submit a job for each line of this file. - for standard input.")
@submit_options
@click.option("--idempotency-key", help="A repeated submit with this key gets the same job.")
@click.option("--wait", is_flag=True, help="Wait for the job's end and show it. Exit code 1 unless it is ACKED.")
@click.option("--timeout", "timeout_ms", type=DURATION, help="With --wait: how long to wait. Exit code 4 after that.")
@json_option
@with_client("30s")
def submit(
    client: Client, payload: str | None, as_text: bool, lines: IO[bytes] | None, wait: bool, timeout_ms: int | None,
    as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Submit a job and print its id.

    PAYLOAD is JSON text, or - for standard input. The job is on stable storage when the id is printed.
    """
    options = given(options)
    if lines is not None:
        if payload is not None or wait or "idempotency_key" in options:
            raise click.UsageError("--lines cannot be used with PAYLOAD, --wait or --idempotency-key")
        _submit_lines(client, lines, as_text, options, as_json)
        return
    if payload is None:
        raise click.UsageError("PAYLOAD is missing: give JSON text, or - for standard input")
    submitted = client.submit(read_value(payload, as_text, "PAYLOAD"), **options)
    if wait:
        _begin(submitted.job_id, as_json)
        job = client.wait_for_completion(submitted.job_id, None if timeout_ms is None else timeout_ms / 1000)
        show_job(job, as_json, is_begun=True)
        require_success(job)
    else:
        show_submitted(submitted, as_json)


def _begin(job_id: str, in_json: bool) -> None:
    """Print the id before the wait: the job stays if the wait is interrupted. As JSON it comes on standard error."""
    if in_json:
        notice(f"{job_id}: submitted")
    else:
        show(record({"job_id": job_id}, JOB_LABEL))
        sys.stdout.flush()


def _submit_lines(client: Client, lines: IO[bytes], as_text: bool, options: dict[str, Any], as_json: bool) -> None:
    for batch in batches(_jobs(lines, as_text, options)):
        with batch.naming_lines():
            for submitted in client.submit_many(batch.jobs):
                show_submitted(submitted, as_json)


def _jobs(lines: IO[bytes], as_text: bool, options: dict[str, Any]) -> Iterator[tuple[int, NewJob]]:
    for number, line in text_lines(lines):
        yield number, NewJob(payload=json_value(line, as_text, f"line {number}"), **options)
