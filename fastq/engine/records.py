"""Records of jobs in the log. They are read by place, and followed if the cleaner moves them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from fastq import _core
from fastq._core import ALL, JobView, Leased, RecordPlace
from fastq.engine.commits import Commits
from fastq.errors import JobNotFound, RecordUnreadable

Job = TypeVar("Job", JobView, Leased)


class Records:
    def __init__(self, core: _core.Core, commits: Commits, now_us: Callable[[], int]) -> None:
        self._core, self._commits, self._now_us = core, commits, now_us

    async def submits(self, jobs: Sequence[JobView | Leased]) -> list[bytes | RecordUnreadable | None]:
        """The SUBMIT record of each job, why it cannot be read, or None if the job is gone. No check is verified here.

        Raises:
            LogUnreadable: nothing can be read now.
        """
        return await self._followed([job.job_id for job in jobs], [job.place for job in jobs], lambda job: job.place)

    async def closes(self, jobs: Sequence[JobView]) -> list[bytes | RecordUnreadable | None]:
        """As `submits`, the record of the end of each job's last attempt. None if it has none."""
        places = [job.close_place for job in jobs]
        return await self._followed([job.job_id for job in jobs], places, lambda job: job.close_place)

    async def _followed(
        self,
        job_ids: list[str],
        first: Sequence[RecordPlace | None],
        place_of: Callable[[JobView], RecordPlace | None],
    ) -> list[bytes | RecordUnreadable | None]:
        records: list[bytes | RecordUnreadable | None] = [None] * len(job_ids)
        places = {i: place for i, place in enumerate(first) if place is not None}
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
                    place = place_of(self._core.job(self._now_us(), ALL, job_ids[i]))
                except JobNotFound:
                    continue
                if place == before[i]:
                    records[i] = RecordUnreadable("the log has no such frame", job_ids[i])
                elif place is not None:
                    places[i] = place
        return records


def sound(record: bytes | RecordUnreadable | FileNotFoundError) -> bytes:
    """The record. Raises the error if it could not be read."""
    if not isinstance(record, bytes):
        raise record
    return record
