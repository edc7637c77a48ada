"""The fence of a database that went back to an earlier state: after a restore, or a repair that gave something up.

Leases that were granted after that state are forgotten, and their workers may still hold the tokens. Tokens are made
from the lease's number, so each lease from then on gets a number above the fence, which no forgotten lease has. The
numbers that a log states need no fence to be replayed: it is of the directory, not of the log.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from fastq.errors import LogDamaged
from fastq.log.files._flusher import crc32c
from fastq.log.files.segments import sync_directory, write_all

FENCE_FILE = "fence"
MAGIC = b"FASTQFEN"
EPOCH_US = 1_577_836_800_000_000  # 2020: from here on the fence counts seconds; leases of one job are fewer
LEASE_NO_MAX = (1 << 31) - 1

_FENCE = struct.Struct("<8sI")
_CRC = struct.Struct("<I")


def fence_at(now_us: int) -> int:
    """The lease number to go on from in a database that goes back at this time.

    Above what a job reaches that is leased less than once a second, also since an earlier time of going back.
    """
    return min(max(0, now_us - EPOCH_US) // 1_000_000, LEASE_NO_MAX)


def read_fence(directory: Path) -> int:
    """New leases have numbers above it; 0 if the directory never went back. Raises LogDamaged, OSError."""
    path = directory / FENCE_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return 0
    head, crc = data[: _FENCE.size], data[_FENCE.size :]
    if len(head) != _FENCE.size or not head.startswith(MAGIC) or crc != _CRC.pack(crc32c(head)):
        raise LogDamaged(
            f"{path}: the file that keeps lease tokens from before a restore out is damaged: restore the backup "
            "again, or stop all workers for as long as their longest lease and remove the file"
        )
    fence: int = _FENCE.unpack(head)[1]
    return fence


def write_fence(directory: Path, fence: int) -> None:
    """Never lower than the one that is there. Durable when this returns. Raises OSError."""
    try:
        fence = max(fence, read_fence(directory))
    except LogDamaged:  # whoever goes back by repairing gets a whole one
        pass
    packed = _FENCE.pack(MAGIC, fence)
    draft = directory / f"{FENCE_FILE}.new"
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write_all(fd, packed + _CRC.pack(crc32c(packed)), 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(draft, directory / FENCE_FILE)
    sync_directory(directory)
