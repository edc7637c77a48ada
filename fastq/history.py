"""A job's history: a chain through the log from its newest record, bounded in number and bytes."""

from __future__ import annotations

from fastq import _core
from fastq.committer import Committer

async def history_records(commits: Committer, newest: bytes | None) -> list[bytes]:
    """The CLOSE and CHANGE records of a job, newest first, as many as are kept.

    Args:
        newest: the record at the job's history place, if it has one.
    """
    kept: list[bytes] = []
    attempts = kept_bytes = 0
    record = newest
    while record is not None:
        found, place = _core.history_of(record)
        for one in found:
            kept_bytes += len(one)
            attempts += _core.read_event(one).what == "attempt"
            if (
                len(kept) == _core.EVENTS_KEPT
                or attempts > _core.ATTEMPTS_KEPT
                or (kept and kept_bytes > _core.HISTORY_BYTES_MAX)
            ):
                return kept
            kept.append(one)
        record = None if place is None else (await commits.records([place]))[0]
    return kept
