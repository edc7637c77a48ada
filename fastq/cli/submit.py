"""`fastq submit`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import click
from msgspec import Raw

from fastq.cli.batches import batches
from fastq.cli.job import require_success, show_job
from fastq.cli.job_options import given, submit_options
from fastq.cli.param_types import DURATION, read_value
from fastq.cli.remote import with_client
from fastq.cli.tables import as_json, json_option
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
        job = client.wait_for_completion(submitted.job_id, None if timeout_ms is None else timeout_ms / 1000)
        show_job(job, as_json)
        require_success(job)
    else:
        _show(submitted, as_json)


def _submit_lines(client: Client, lines: IO[bytes], as_text: bool, options: dict[str, Any], as_json: bool) -> None:
    for batch in batches(_jobs(lines, as_text, options)):
        with batch.naming_lines():
            for submitted in client.submit_many(batch.jobs):
                _show(submitted, as_json)


def _jobs(lines: IO[bytes], as_text: bool, options: dict[str, Any]) -> Iterator[tuple[int, NewJob]]:
    for number, line in enumerate(lines, 1):
        if text := line.strip():
            payload: Raw = read_value(text.decode(errors="replace"), as_text, f"line {number}")
            yield number, NewJob(payload=payload, **options)


def _show(submitted: Any, in_json: bool) -> None:
    print(as_json(submitted) if in_json else submitted.job_id)
