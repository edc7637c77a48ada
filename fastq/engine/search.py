"""Search in records of the log: in payloads, and in how the last attempts of jobs ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fastq import _core
from fastq._core import JobView
from fastq.engine.commands import Texts
from fastq.engine.records import Records, sound
from fastq.engine.results import End
from fastq.errors import LogUnreadable, RecordUnreadable

LOG = logging.getLogger(__name__)

WITH_TEXT = frozenset({"error", "discarded", "unreadable"})  # outcomes of attempts whose record has an error text
AS_ERROR = frozenset({"lease_expired", "poisoned", "discarded"})  # shown as the error if there is no text

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """Jobs that match. `ends`: by job id, how their last attempts ended, of those that failed or were searched by it.

    `unreadable` jobs were not searched.
    """

    jobs: list[JobView]
    ends: dict[str, End]
    unreadable: int = 0


class Search:
    def __init__(self, records: Records) -> None:
        self._records = records

    async def matching(self, jobs: Sequence[JobView], wanted: Texts) -> Found:
        """The jobs that match, in their order, and their ends. Raises LogUnreadable."""
        found, ends, unreadable = list(jobs), dict[str, End](), 0
        if wanted.of_end:
            known, unreadable = await self._ends(found, with_worker=bool(wanted.worker))
            found = [job for job in found if (end := known.get(job.job_id)) and _ended_so(job, end, wanted)]
            ends = {job.job_id: known[job.job_id] for job in found}
        if wanted.text:
            part, payloads = wanted.text.encode(), await self._payloads(found)
            unreadable += payloads.count(None)
            pairs = zip(found, payloads, strict=True)
            found = [job for job, payload in pairs if payload is not None and part in payload]
        return Found(found, ends if wanted.of_end else await self.ends(found), unreadable)

    async def ends(self, jobs: Sequence[JobView]) -> dict[str, End]:
        """How the last attempts of those jobs ended that failed. An end whose record cannot be read has no text."""
        failed = [job for job in jobs if job.outcome in WITH_TEXT or job.outcome in AS_ERROR]
        try:
            return (await self._ends(failed, with_worker=False))[0]
        except LogUnreadable as error:
            LOG.error("a list of jobs is shown without their errors: %s", error)
            return {}

    async def _ends(self, jobs: list[JobView], *, with_worker: bool) -> tuple[dict[str, End], int]:
        """By job id, how each last attempt ended, as far as it can be read; and how many cannot be read."""
        ends = {job.job_id: End(job.outcome if job.outcome in AS_ERROR else "") for job in jobs}
        read = [job for job in jobs if job.close_place and (with_worker or job.outcome in WITH_TEXT)]
        closes = await self._records.closes(read)
        unreadable = 0
        for job, record in zip(read, closes, strict=True):
            try:
                if record is not None:
                    error, code, worker_id = _core.close_error(sound(record), job.job_id)
                    ends[job.job_id] = End(error or ends[job.job_id].error, code, worker_id)
            except RecordUnreadable as failure:
                LOG.error("the end of job %s cannot be read: %s", job.job_id, failure.reason)
                del ends[job.job_id]
                unreadable += 1
        return ends, unreadable

    async def _payloads(self, jobs: Sequence[JobView]) -> list[bytes | None]:
        """The payload's JSON text of each job; None if it cannot be read, which is logged, or the job is gone."""
        texts: list[bytes | None] = []
        for job, record in zip(jobs, await self._records.submits(jobs), strict=True):
            try:
                texts.append(None if record is None else _core.submit_payload(sound(record), job.job_id))
            except RecordUnreadable as error:
                LOG.error("job %s is not searched: its payload cannot be read: %s", job.job_id, error.reason)
                texts.append(None)
        return texts


def _ended_so(job: JobView, end: End, wanted: Texts) -> bool:
    worker_id = job.worker_id if job.state == "RUNNING" else end.worker_id
    return (
        wanted.error in end.error
        and wanted.error_code in ("", end.error_code)
        and wanted.worker in ("", worker_id)
    )  # fmt: skip


def read_bytes(job: JobView, wanted: Texts) -> int:
    """How many bytes of records a search reads for the job, at most."""
    close = job.close_place
    reads_end = close is not None and (wanted.worker or job.outcome in WITH_TEXT)
    return (job.place.bytes if wanted.text else 0) + (close.bytes if close is not None and reads_end else 0)


def pieces(jobs: Sequence[T], bytes_of: Callable[[T], int], bytes_max: int) -> Iterator[list[T]]:
    """Split jobs, in order, into pieces of at most `bytes_max`, or of one job."""
    piece: list[T] = []
    piece_bytes = 0
    for job in jobs:
        if piece and piece_bytes + bytes_of(job) > bytes_max:
            yield piece
            piece, piece_bytes = [], 0
        piece.append(job)
        piece_bytes += bytes_of(job)
    if piece:
        yield piece
