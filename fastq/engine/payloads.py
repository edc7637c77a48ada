"""Payloads are in the log: the records that hold them are read by place, and followed if the cleaner moves them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from fastq import _core
from fastq._core import ALL, JobView, Leased
from fastq.engine.commits import Commits
from fastq.errors import JobNotFound, RecordUnreadable

LOG = logging.getLogger(__name__)


class Payloads:
    def __init__(self, core: _core.Core, commits: Commits, now_us: Callable[[], int]) -> None:
        self._core, self._commits, self._now_us = core, commits, now_us

    async def records(self, jobs: Sequence[JobView | Leased]) -> list[bytes | RecordUnreadable | None]:
        """The SUBMIT record of each job, why it cannot be read, or None if the job is gone. No check is verified here.

        Raises:
            LogUnreadable: nothing can be read now.
        """
        records: list[bytes | RecordUnreadable | None] = [None] * len(jobs)
        places = {i: job.place for i, job in enumerate(jobs)}
        while places:
            moved: list[int] = []
            for i, record in zip(places, await self._commits.read(list(places.values())), strict=True):
                if isinstance(record, FileNotFoundError):
                    moved.append(i)
                else:
                    records[i] = record
            before, places = places, {}
            for i in moved:
                try:
                    place = self._core.job(self._now_us(), ALL, jobs[i].job_id).place
                except JobNotFound:
                    continue
                if place == before[i]:
                    records[i] = RecordUnreadable("the log has no such frame", jobs[i].job_id)
                else:
                    places[i] = place
        return records

    async def texts(self, jobs: Sequence[JobView]) -> list[bytes | None]:
        """The payload's JSON text of each job; None if it cannot be read, which is logged, or the job is gone.

        Raises:
            LogUnreadable.
        """
        texts: list[bytes | None] = []
        for job, record in zip(jobs, await self.records(jobs), strict=True):
            try:
                texts.append(None if record is None else _core.submit_payload(sound(record), job.job_id))
            except RecordUnreadable as error:
                LOG.error("job %s is not searched: its payload cannot be read: %s", job.job_id, error.reason)
                texts.append(None)
        return texts


def sound(record: bytes | RecordUnreadable | FileNotFoundError) -> bytes:
    """The record. Raises the error if it could not be read."""
    if not isinstance(record, bytes):
        raise record
    return record
