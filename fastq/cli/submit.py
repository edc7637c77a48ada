"""`fastq submit`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import click
from msgspec import Raw

from fastq.cli.batches import batches
from fastq.cli.job import ended, show_job
from fastq.cli.job_options import given, submit_options
from fastq.cli.param_types import DURATION, read_value
from fastq.cli.remote import asks
from fastq.cli.tables import as_json, json_option
from fastq.client.models import NewJob
from fastq.client.sync_client import Client


@click.command()
@click.argument("payload", required=False)
@click.option("--text", "as_text", is_flag=True, help="PAYLOAD is a string, not JSON.")
@click.option("--lines", type=click.File("rb"), help="Instead of PAYLOAD: each line of this file is that of a job.")
@submit_options
@click.option("--idempotency-key", help="The same submit again, within an hour, is answered with the same job.")
@click.option("--wait", is_flag=True, help="Until the job has ended, and show it. Exit code 1 unless it is ACKED.")
@click.option("--timeout", "timeout_ms", type=DURATION, help="How long to wait. Exit code 4 after that.")
@json_option
@asks("30s")
def submit(
    client: Client, payload: str | None, as_text: bool, lines: IO[bytes] | None, wait: bool, timeout_ms: int | None,
    as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Store a job, and print its id.

    PAYLOAD is JSON text, - for standard input. The job is on stable storage when the id appears.
    """
    options = given(options)
    if lines is not None:
        if payload is not None or wait or "idempotency_key" in options:
            raise click.UsageError("--lines goes with neither PAYLOAD nor --wait nor --idempotency-key")
        _submit_lines(client, lines, as_text, options, as_json)
        return
    if payload is None:
        raise click.UsageError("PAYLOAD is missing: JSON text, or - for standard input")
    submitted = client.submit(read_value(payload, as_text, "PAYLOAD"), **options)
    if wait:
        job = client.wait_for_completion(submitted.job_id, None if timeout_ms is None else timeout_ms / 1000)
        show_job(job, as_json)
        ended(job)
    else:
        _show(submitted, as_json)


def _submit_lines(client: Client, lines: IO[bytes], as_text: bool, options: dict[str, Any], as_json: bool) -> None:
    for batch in batches(_jobs(lines, as_text, options)):
        with batch.told():
            for submitted in client.submit_many(batch.jobs):
                _show(submitted, as_json)


def _jobs(lines: IO[bytes], as_text: bool, options: dict[str, Any]) -> Iterator[tuple[int, NewJob]]:
    for number, line in enumerate(lines, 1):
        if text := line.strip():
            payload: Raw = read_value(text.decode(errors="replace"), as_text, f"line {number}")
            yield number, NewJob(payload=payload, **options)


def _show(submitted: Any, in_json: bool) -> None:
    print(as_json(submitted) if in_json else submitted.job_id)
