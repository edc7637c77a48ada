"""A second reader of the log's format, in plain Python and from docs/log-format.md alone, for tests."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

FRAME = struct.Struct("<IHHQQQQIIIIII")
SEGMENT = struct.Struct("<8sII16sQIIQQQQI")
HEAD_BYTES = 64
SEAL, CLOSED = 1, 2


@dataclass(frozen=True)
class Frame:
    offset: int
    flags: int
    seq: int
    durable_seq: int
    epoch: int
    salt: int
    segment: int
    record_bytes: int
    count: int
    prev_crc: int
    head_crc: int
    records: bytes


@dataclass(frozen=True)
class Segment:
    number: int
    align: int
    database_id: bytes
    epoch: int
    file_bytes: int
    first_seq: int
    synced_seq: int
    salt: int
    frames: list[Frame]

    @property
    def with_records(self) -> list[Frame]:
        return [frame for frame in self.frames if not frame.flags]


def crc(data: bytes) -> int:
    return int(google_crc32c.value(data))


def checked(record: bytes, covered: int | None = None) -> bytes:
    """A record with the check that fits it.

    Args:
        covered: the bytes before the first record in it, for a GROUP or JOB.
    """
    return record[:8] + crc(record[:8] + record[12:covered]).to_bytes(4, "little") + record[12:]


def read_segment(path: Path) -> Segment:
    """Read a segment and its frames, up to the first offset without a frame of its salt."""
    data = path.read_bytes()
    magic, version, align, database_id, epoch, number, zero, size, first_seq, synced_seq, salt, head_crc = (
        SEGMENT.unpack_from(data)
    )
    assert (magic, version, zero) == (b"FASTQSEG", 3, 0)
    assert head_crc == crc(data[: SEGMENT.size - 4])
    assert not any(data[SEGMENT.size : 4096])
    frames, at = [], max(4096, align)
    while at < len(data) and (frame := read_frame(data, at)) is not None and frame.salt == salt:
        frames.append(frame)
        at += (HEAD_BYTES + frame.record_bytes + align - 1) // align * align
    return Segment(number, align, database_id, epoch, size, first_seq, synced_seq, salt, frames)


def read_frame(data: bytes, at: int) -> Frame | None:
    magic, version, flags, seq, durable_seq, epoch, salt, segment, size, count, prev_crc, payload_crc, head_crc = (
        FRAME.unpack_from(data, at)
    )
    if magic != 0x4D524651 or head_crc != crc(data[at : at + 60]):
        return None
    assert version == 1
    records = data[at + HEAD_BYTES : at + HEAD_BYTES + size]
    if payload_crc != crc(records):
        return None
    return Frame(at, flags, seq, durable_seq, epoch, salt, segment, size, count, prev_crc, head_crc, records)


def change(path: Path, offset: int, data: bytes) -> None:
    """Overwrite bytes of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(path: Path, offset: int, bit: int = 0) -> None:
    with path.open("rb") as file:
        file.seek(offset)
        (byte,) = file.read(1)
    change(path, offset, bytes([byte ^ 1 << bit]))
