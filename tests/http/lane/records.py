"""What a server appended to its log in memory, to compare it with another's."""

from __future__ import annotations

import struct

from fastq.log.memory import MemoryLog

HEAD = struct.Struct("<BBHII")  # type, version, flags, bytes, check
CHECK_AT = 8
GROUP, CLOSE, CHANGE = 8, 5, 11
PREVIOUS = {CLOSE: 64, CHANGE: 4}  # the flag of a record that names the place of the one before it
PLACE_BYTES = 12


class Appended:
    """The records that a log got since the last look."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._seen = len(log._frames)

    def take(self) -> bytes:
        frames = self._log._frames[self._seen :]
        self._seen += len(frames)
        return b"".join(frame.records for frame in frames)


def difference(mine: bytes, others: bytes) -> str:
    """How the records of two logs differ; empty: they do not.

    Some differences mean the same. A record may be alone in a group. Records that share a frame in one log may have
    frames of their own in the other: places in them differ then, and what each commit adds, such as an expiry, stands
    between other records; so the order is compared job by job.
    """
    return "" if mine == others else _difference(mine, others)


def split(records: bytes) -> list[bytes]:
    """The records in order of their jobs; what is alone in a group, without the group."""
    found = []
    at = 0
    while at < len(records):
        kind, _, _, size, _ = HEAD.unpack_from(records, at)
        record = records[at : at + size]
        at += size
        if kind == GROUP and HEAD.unpack_from(record, HEAD.size)[3] == size - HEAD.size:
            record = record[HEAD.size :]
        found.append(record)
    return sorted(found, key=_first_job)


def _first_job(record: bytes) -> int:
    """The number of the record's job, of a group's first one; of a record without a job, some other number."""
    start = 2 * HEAD.size if record[0] == GROUP else HEAD.size
    return int.from_bytes(record[start : start + 8], "little")


def _difference(mine: bytes, others: bytes) -> str:
    pairs = split(mine), split(others)
    if len(pairs[0]) != len(pairs[1]):
        return f"{len(pairs[0])} records and {len(pairs[1])}: {mine!r}\n{others!r}"
    for one, other in zip(*pairs, strict=True):
        if one == other:
            continue
        kind, _, flags, _, _ = HEAD.unpack_from(one)
        if one[:CHECK_AT] != other[:CHECK_AT]:
            return f"{one!r}\n{other!r}"
        if kind == GROUP:
            if inside := _difference(one[HEAD.size :], other[HEAD.size :]):
                return inside
        elif not (flags & PREVIOUS.get(kind, 0) and _differ_in_one_place(one, other)):
            return f"{one!r}\n{other!r}"
    return ""


def _differ_in_one_place(one: bytes, other: bytes) -> bool:
    """Whether records with equal types and lengths differ, beside their checks, in one place only."""
    body, others = one[HEAD.size :], other[HEAD.size :]
    places = [at for at, (a, b) in enumerate(zip(body, others, strict=True)) if a != b]
    return bool(places) and places[-1] - places[0] < PLACE_BYTES
