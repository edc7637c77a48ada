"""Groups the jobs of a file into batches that fit one request."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fastq.cli.errors import Failed
from fastq.client.errors import Refused
from fastq.client.models import NewJob

JOBS_MAX = 1_000
PAYLOAD_BYTES_MAX = 4 << 20  # the server accepts 8 MiB; the rest is for the other members


@dataclass(slots=True)
class Batch:
    """Jobs and the lines that they come from, both numbers included."""

    first_line: int
    last_line: int = 0
    jobs: list[NewJob] = field(default_factory=list)

    @contextlib.contextmanager
    def naming_lines(self) -> Iterator[None]:
        """Add the line numbers to a refusal; the server counts from the first job of the batch. Raises Failed."""
        try:
            yield
        except Refused as refused:
            where = f"lines {self.first_line} to {self.last_line}, none submitted"
            raise Failed(f"{where}: {refused}") from refused


def batches(jobs: Iterable[tuple[int, NewJob]]) -> Iterator[Batch]:
    """
    Args:
        jobs: each with the number of its line; their payloads are Raw.
    """
    batch, batch_bytes = Batch(0), 0
    for number, job in jobs:
        job_bytes = len(bytes(job.payload))
        if batch.jobs and (len(batch.jobs) == JOBS_MAX or batch_bytes + job_bytes > PAYLOAD_BYTES_MAX):
            yield batch
            batch, batch_bytes = Batch(0), 0
        batch.first_line = batch.first_line or number
        batch.last_line = number
        batch.jobs.append(job)
        batch_bytes += job_bytes
    if batch.jobs:
        yield batch
