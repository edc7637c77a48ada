"""`fastq export` and `fastq import`: jobs as JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import IO, Any
from uuid import UUID

import click
import msgspec
from msgspec import UNSET, Raw

from fastq.cli.batches import batches
from fastq.cli.errors import Failed
from fastq.cli.job_options import STATES, given, where_options
from fastq.cli.notices import notice
from fastq.cli.remote import with_client
from fastq.cli.streams import json_line, output_file, say, text_lines
from fastq.cli.tables import as_json
from fastq.client.errors import NotFound, Refused
from fastq.client.models import TERMINAL, JobStatus, NewJob
from fastq.client.sync_client import Client
from fastq.server.logs import counted

AT_ONCE = 8  # connections; payloads are read one by one
PAGE = 1000
LINE_BYTES_MAX = 8 << 20


# --- export -----------------------------------------------------------------------------------------------------------


@click.command("export")
@where_options
@click.option("--output", "-o", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), default="-",
              help="File to write; it appears when it is complete. Default: standard output.")  # fmt: skip
@with_client("1m")
def export_jobs(client: Client, output: Path, **where: Any) -> None:
    """Write jobs as JSON lines.

    Writes all jobs that match the filters, oldest first, with payloads and results. `fastq import` reads the lines.
    They lack what the API does not show: unique keys, and lease lengths and backoffs of single jobs. For a copy of
    everything use `fastq backup`.

    A job that the server cannot read from its disk is named and left out, and the exit code is 1.
    """
    written, unreadable = 0, 0
    with output_file(output) as file:
        for job in _exported(client, _ids(client, given(where))):
            if isinstance(job, str):
                notice(job)
                unreadable += 1
                continue
            file.write(json_line(as_json(job)).encode() + b"\n")
            written += 1
        file.flush()
    notice(counted(written, "job"))
    if unreadable:
        raise Failed(f"{counted(unreadable, 'job')} could not be read")


def _exported(client: Client, ids: list[int]) -> Iterator[JobStatus | str]:
    """The jobs, the last id first: each whole, or why it cannot be read."""
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        while ids:
            chunk = [ids.pop() for _ in range(min(PAGE, len(ids)))]
            for job in pool.map(lambda number: _whole(client, str(UUID(int=number))), chunk):
                if job is not None:
                    yield job
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _ids(client: Client, where: dict[str, Any]) -> list[int]:
    """The ids of the jobs that match, newest first."""
    return [UUID(job.job_id).int for job in client.jobs(**where)]


def _whole(client: Client, job_id: str) -> JobStatus | str | None:
    """The job with its payload, or why it cannot be read. None if it was deleted since it was listed."""
    try:
        return client.get(job_id, with_payload=True)
    except NotFound:
        return None
    except Refused as refused:
        if refused.code != "record_unreadable":
            raise
        return f"{job_id}: {refused.message}"


# --- import -----------------------------------------------------------------------------------------------------------


class _Line(NewJob, kw_only=True, forbid_unknown_fields=True):
    """A new job, and the other members that an export has."""

    payload: Raw
    job_id: str = ""
    state: str = ""
    attempts: Any = None
    created_at: Any = None
    lease_until: Any = None
    worker_id: Any = None
    cancel_requested: Any = None
    progress: Any = None
    outcome: Any = None
    finished_at: Any = None
    result: Any = None
    result_error: Any = None
    error_code: Any = None


_LINE = msgspec.json.Decoder(_Line)
_OF_A_JOB = [field.name for field in msgspec.structs.fields(NewJob)]


@click.command("import")
@click.argument("source", type=click.File("rb"), default="-")
@click.option("--state", "states", type=STATES, multiple=True,
              help="Also import finished jobs in this state. May be repeated.")  # fmt: skip
@click.option("--queue", help="Submit to this queue instead of that of the line.")
@with_client("1m")
def import_jobs(client: Client, source: IO[bytes], states: Sequence[str], queue: str | None) -> None:
    """Submit jobs from JSON lines.

    SOURCE (default: standard input) has lines as `fastq export` writes them; only `payload` is required. Finished jobs
    are skipped unless --state names their state; attempts start at 0. Repeating an import submits no job twice while
    the server remembers the idempotency keys (an hour), or while a job with a job_id is unfinished. So repeat an import
    that failed.
    """
    submitted = there = 0
    for batch in batches(_jobs(source, frozenset(states), queue)):
        with batch.naming_lines():
            answers = client.submit_many(batch.jobs)
        duplicates = sum(answer.duplicate for answer in answers)
        submitted, there = submitted + len(answers) - duplicates, there + duplicates
    say(f"{submitted:,} submitted, {there:,} already there")


def _jobs(source: IO[bytes], states: frozenset[str], queue: str | None) -> Iterator[tuple[int, NewJob]]:
    for number, text in text_lines(source):
        try:
            line = _LINE.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise click.UsageError(f"line {number} is not a job: {error}; lines before it may be submitted") from None
        if line.state in TERMINAL and line.state not in states:
            continue
        yield number, _new_job(line, number, queue)


def _new_job(line: _Line, number: int, queue: str | None) -> NewJob:
    job = NewJob(**{name: getattr(line, name) for name in _OF_A_JOB})
    if queue is not None:
        job.queue = queue
    if job.unique_key is UNSET and line.job_id:
        job.unique_key = f"import:{line.job_id}"
    if job.idempotency_key is UNSET:  # depends on the content: a changed job is a new submit
        digest = sha256(msgspec.json.encode(job)).hexdigest()
        job.idempotency_key = f"import:{line.job_id or number}:{digest}"
    return job
