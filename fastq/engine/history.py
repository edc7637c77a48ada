"""A job's history: a chain through the log from its newest record, bounded in number and bytes."""

from __future__ import annotations

from fastq._core import ATTEMPTS_KEPT, EVENTS_KEPT, HISTORY_BYTES_MAX, history_of
from fastq.engine.commits import Committer

CLOSE = 5  # the type of the record that ends an attempt


async def history_records(commits: Committer, newest: bytes | None) -> list[bytes]:
    """The CLOSE and CHANGE records of a job, newest first, as many as are kept.

    Args:
        newest: the record at the job's history place, if it has one.
    """
    history: list[bytes] = []
    record = newest
    while record is not None:
        found, place = history_of(record)
        history += found
        record = None if place is None or is_full(history) else (await commits.records([place]))[0]
    return cut(history)


def is_full(history: list[bytes]) -> bool:
    """Whether nothing older is kept."""
    attempts = sum(record[0] == CLOSE for record in history)
    return attempts >= ATTEMPTS_KEPT or len(history) >= EVENTS_KEPT or sum(map(len, history)) >= HISTORY_BYTES_MAX


def cut(history: list[bytes]) -> list[bytes]:
    """What is kept of a history, newest first."""
    kept: list[bytes] = []
    for record in history:
        if is_full(kept):
            break
        kept.append(record)
    return kept
