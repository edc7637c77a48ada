"""Lives of one log, each a process, traced call by call by iotrace.c.

    LD_PRELOAD=iotrace.so IOTRACE_DIR=… IOTRACE_FILE=… \\
        python -m tests.log.files.life DIR SEED LIVES [documents|walk|jobs [MUTANT]]
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from fastq._core import FRAME_HEAD_BYTES, Batch
from fastq.log.files.log import LocalLog
from fastq.log.files.segments import segment_numbers, segment_path
from tests.log.files.writer import Writer

SEGMENT_BYTES = 16 << 10
FRAMES = 14  # of a life
SIZES = [0, 30, 300, 448 - 60, 1000, 3000, 6000]  # of bodies, bytes
FAILED = 70

Live = Callable[[Path, random.Random, bool], None]
"""directory, rng, whether to close: one life in that directory; it need not return"""


def note(data: bytes) -> None:
    """Put a remark into the trace."""
    _shim().iotrace_note(data, ctypes.c_size_t(len(data)))


def _shim() -> ctypes.CDLL:
    return ctypes.CDLL(os.environ["LD_PRELOAD"].split()[-1])


class TracedLog(LocalLog):
    """Notes B with a batch's sequence number and records before the write, A when it may be acknowledged."""

    answers_early = False

    def commit(self, batch: Batch) -> None:
        records = bytes(memoryview(batch)[FRAME_HEAD_BYTES : FRAME_HEAD_BYTES + batch.record_bytes])
        note(struct.pack("<cQ", b"B", batch.seq) + records)
        if self.answers_early:
            note(struct.pack("<cQ", b"A", batch.seq))
        super().commit(batch)

    def start(self, on_durable: Callable[[int], None], on_failed: Callable[[BaseException], None]) -> None:
        def durable(seq: int) -> None:
            note(struct.pack("<cQ", b"A", seq))
            on_durable(seq)

        super().start(durable, on_failed)


class HastyLog(TracedLog):
    """A mutant: acknowledges a batch at its commit, before it is durable."""

    answers_early = True


def log_of(directory: Path, kind: type[LocalLog] = LocalLog) -> LocalLog:
    return kind(directory, segment_bytes=SEGMENT_BYTES, align=512, cache_bytes=0)


async def write_documents(log: LocalLog, rng: random.Random, close: bool) -> None:
    """Open, write some frames, and close; or stop dead, most often with a batch in flight."""
    writer = await Writer(log).open().start()
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


def life_of(how: list[str]) -> Live:
    """The kind of life that the command line names."""
    if how[:1] == ["jobs"]:
        from tests.log.files.work import live_with_jobs

        return lambda directory, rng, close: asyncio.run(live_with_jobs(directory, rng, close, *how[1:]))
    if how[:1] == ["walk"]:
        from tests.log.files.walk import live_a_walk

        return live_a_walk
    kind = HastyLog if how[1:] == ["answers early"] else TracedLog
    return lambda directory, rng, close: asyncio.run(write_documents(log_of(directory, kind), rng, close))


def leave_garbage(directory: Path) -> None:
    """Leave a spare with sound frames of an earlier segment, as a recycled one has."""
    numbers = segment_numbers(directory)
    sizes = [segment_path(directory, n).stat().st_size for n in numbers]
    whole = [n for n, size in zip(numbers, sizes, strict=True) if size == max(sizes)]
    if not whole:
        return
    fd = os.open(directory / "spare-9", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.pwrite(fd, segment_path(directory, whole[0]).read_bytes(), 0)
    os.fsync(fd)
    os.close(fd)
    fd = os.open(directory, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def one_life(directory: Path, rng: random.Random, live: Live) -> None:
    """Run a life in a process of its own. Raises if it did not end well."""
    close, garbage = rng.random() < 0.3, rng.random() < 0.3
    pid = os.fork()
    if pid == 0:
        ended = FAILED
        try:
            if garbage:
                leave_garbage(directory)
            live(directory, rng, close)
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
    rng, live = random.Random(seed), life_of(sys.argv[4:] or ["documents"])
    for _ in range(lives):
        one_life(directory, rng, live)


if __name__ == "__main__":
    main()
