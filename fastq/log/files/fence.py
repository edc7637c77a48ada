"""The fence of a database that returned to an earlier state, by a restore or a repair that cut frames.

The database has lost the leases that were granted after that state, but workers may still hold their tokens. A token
contains the lease's number. Each new lease gets a number above the fence, and no lost lease has such a number. Replay
does not use the fence: it belongs to the directory, not to the log.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from fastq.drafts import sync_directory
from fastq.errors import LogDamaged
from fastq.log.files._flusher import crc32c
from fastq.log.files.segments import write_all

FENCE_FILE = "fence"
FENCE_DRAFT = "fence.new"
MAGIC = b"FASTQFEN"
EPOCH_US = 1_577_836_800_000_000  # 2020: the fence is the seconds since then; a job has fewer leases
LEASE_NO_MAX = (1 << 31) - 1

_FENCE = struct.Struct("<8sI")
_CRC = struct.Struct("<I")


def fence_at(now_us: int) -> int:
    """The fence of a database that returns to an earlier state at this time.

    It is above the lease number of any job that is leased less than once a second, also after an earlier return.
    """
    return min(max(0, now_us - EPOCH_US) // 1_000_000, LEASE_NO_MAX)


def read_fence(directory: Path) -> int:
    """The directory's fence; 0 if it never returned to an earlier state. Raises LogDamaged, OSError."""
    path = directory / FENCE_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return 0
    head, crc = data[: _FENCE.size], data[_FENCE.size :]
    if len(head) != _FENCE.size or not head.startswith(MAGIC) or crc != _CRC.pack(crc32c(head)):
        raise LogDamaged(
            f"{path}: the fence file, which excludes lease tokens older than a restore, is damaged: restore the backup "
            "again, or stop all workers for as long as their longest lease and remove the file"
        )
    fence: int = _FENCE.unpack(head)[1]
    return fence


def write_fence(directory: Path, fence: int) -> None:
    """Raise the directory's fence to `fence`; it never gets lower. Durable when this returns. Raises OSError."""
    try:
        fence = max(fence, read_fence(directory))
    except LogDamaged:  # a repair writes a new one
        pass
    packed = _FENCE.pack(MAGIC, fence)
    draft = directory / FENCE_DRAFT
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write_all(fd, packed + _CRC.pack(crc32c(packed)), 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(draft, directory / FENCE_FILE)
    sync_directory(directory)
