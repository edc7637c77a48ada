"""Lives of one log, each a process, told to iotrace.c call by call.

LD_PRELOAD=iotrace.so IOTRACE_DIR=… IOTRACE_FILE=… python -m tests.log.life DIRECTORY SEED LIVES [hasty]
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import struct
import sys
import traceback
from pathlib import Path

from fastq._core import FRAME_HEAD_BYTES, Batch
from fastq.log.local import LocalLog
from fastq.log.segments import segment_numbers, segment_path
from tests.log.writer import Writer

SEGMENT_BYTES = 16 << 10
FRAMES = 14  # of a life
SIZES = [0, 30, 300, 448 - 60, 1000, 3000, 6000]  # of bodies, bytes
FAILED = 70


def note(data: bytes) -> None:
    """Put a remark into the trace."""
    _shim().iotrace_note(data, ctypes.c_size_t(len(data)))


def _shim() -> ctypes.CDLL:
    return ctypes.CDLL(os.environ["LD_PRELOAD"].split()[-1])


def log_of(directory: Path) -> LocalLog:
    return LocalLog(directory, segment_bytes=SEGMENT_BYTES, align=512, cache_bytes=0)


class TracedWriter(Writer):
    """Notes B with a batch's sequence number and records before it is handed over, A when it may be acknowledged."""

    def _commit(self, batch: Batch) -> None:
        records = bytes(memoryview(batch)[FRAME_HEAD_BYTES : FRAME_HEAD_BYTES + batch.record_bytes])
        note(struct.pack("<cQ", b"B", batch.seq) + records)
        super()._commit(batch)

    def _durable(self, seq: int) -> None:
        note(struct.pack("<cQ", b"A", seq))
        super()._durable(seq)


class HastyWriter(TracedWriter):
    """A mutant: acknowledges a batch when it is handed over, not when it is durable."""

    def _commit(self, batch: Batch) -> None:
        records = bytes(memoryview(batch)[FRAME_HEAD_BYTES : FRAME_HEAD_BYTES + batch.record_bytes])
        note(struct.pack("<cQ", b"B", batch.seq) + records)
        note(struct.pack("<cQ", b"A", batch.seq))
        self.log.commit(batch)


async def live(writer: Writer, rng: random.Random, *, close: bool) -> None:
    """Open, write some frames, and close; or stop dead, most often with a batch under way."""
    await writer.open().start()
    for number in range(rng.randrange(FRAMES)):
        size = rng.choice(SIZES)
        await writer.room(size)
        writer.append(f"{writer.opened.epoch}-{number}", rng.randbytes(size))
        writer.kick()
        if rng.random() < 0.6:
            await writer.settled()
    if not close:
        os._exit(0)
    await writer.settled()
    await writer.log.close()


def leave_garbage(directory: Path) -> None:
    """A spare full of sound frames of an earlier segment, as one that was recycled."""
    numbers = segment_numbers(directory)
    whole = [n for n in numbers if segment_path(directory, n).stat().st_size == SEGMENT_BYTES]
    if not whole:
        return
    fd = os.open(directory / "spare-9", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.pwrite(fd, segment_path(directory, whole[0]).read_bytes(), 0)
    os.fsync(fd)
    os.close(fd)
    fd = os.open(directory, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def one_life(directory: Path, rng: random.Random, kind: type[TracedWriter]) -> None:
    """In a process of its own; raises if that did not end well."""
    close, garbage = rng.random() < 0.3, rng.random() < 0.3
    pid = os.fork()
    if pid == 0:
        ended = FAILED
        try:
            if garbage:
                leave_garbage(directory)
            asyncio.run(live(kind(log_of(directory)), rng, close=close))
            ended = 0
        finally:
            if ended:
                traceback.print_exc()
            os._exit(ended)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, f"a life ended with {status}"
    rng.seed(rng.random())  # the child drew from its own copy


def main() -> None:
    directory, seed, lives = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(seed)
    for _ in range(lives):
        one_life(directory, rng, HastyWriter if "hasty" in sys.argv[4:] else TracedWriter)


if __name__ == "__main__":
    main()
