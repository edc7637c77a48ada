"""A job's history: records in the log, each linked to the one before; bounded in number and bytes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from fastq import _core
from fastq._core import ATTEMPTS_KEPT, CLOSE, EVENTS_KEPT, HISTORY_BYTES_MAX, history_of
from fastq.engine.commands import Principal
from fastq.engine.commits import Commits
from fastq.engine.records import sound
from fastq.engine.results import JobHistory
from fastq.errors import RecordUnreadable

TRIES = 3  # reads, before a missing file counts as a fault


class History:
    def __init__(self, core: _core.Core, commits: Commits, now_us: Callable[[], int]) -> None:
        self._core, self._commits, self._now_us = core, commits, now_us

    async def history(self, who: Principal, job_id: str) -> JobHistory:
        """Read a job's history from the log. Raises JobNotFound, RecordUnreadable."""
        for _ in range(TRIES):
            try:
                return await self._history(who, job_id)
            except FileNotFoundError:  # the cleaner moved the job and its history between two reads
                continue
        return await self._history(who, job_id)

    async def _history(self, who: Principal, job_id: str) -> JobHistory:
        view = self._core.job(self._now_us(), who.sees, job_id)
        places = [view.place] if view.history_place is None else [view.place, view.history_place]
        submit, *newest = await self._commits.read(places)
        records = await self._chain(view.number, sound(newest[0]) if newest else None)
        events = [_core.read_event(record) for record in records]
        return JobHistory(job_id, events, view.created_us, _submitter(submit, job_id))

    async def _chain(self, number: int, newest: bytes | None) -> list[bytes]:
        """The CLOSE and CHANGE records of a job, newest first, as many as are kept.

        Args:
            number: of the job.
            newest: the record at the job's history place, if it has one.
        """
        history: list[bytes] = []
        record = newest
        while record is not None:
            found, place = history_of(record, number)
            history += found
            record = None if place is None or is_full(history) else (await self._commits.records([place]))[0]
        return cut(history)


def _submitter(submit: bytes | RecordUnreadable | FileNotFoundError, job_id: str) -> str:
    """The key that submitted the job. Empty if the record cannot be read: the history is elsewhere."""
    with suppress(RecordUnreadable):
        return _core.submit_facts(sound(submit), job_id).key_id
    return ""


def is_full(history: list[bytes]) -> bool:
    """Whether a history has reached a bound: older records are not kept."""
    attempts = sum(record[0] == CLOSE for record in history)
    return attempts >= ATTEMPTS_KEPT or len(history) >= EVENTS_KEPT or sum(map(len, history)) >= HISTORY_BYTES_MAX


def cut(history: list[bytes]) -> list[bytes]:
    """The records of a history that are kept, newest first."""
    kept: list[bytes] = []
    for record in history:
        if is_full(kept):
            break
        kept.append(record)
    return kept
