"""Compare ways to make 4 KiB durable in a file of zeros, in turn, so that a slow moment of the disk affects all.

python -m bench.syncs [DIRECTORY] [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.segments import FRAME_BYTES, SEGMENT_BYTES, filled, say

Way = Callable[[int, bytes, int], object]


def write_then_fdatasync(fd: int, frame: bytes, offset: int) -> None:
    """The log's way."""
    os.pwrite(fd, frame, offset)
    os.fdatasync(fd)


def write_with_dsync(fd: int, frame: bytes, offset: int) -> None:
    os.pwritev(fd, [frame], offset, os.RWF_DSYNC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", default=".")
    parser.add_argument("--rounds", type=int, default=2000)
    asked = parser.parse_args()
    frame = random.randbytes(FRAME_BYTES)
    ways: list[Way] = [write_then_fdatasync, write_with_dsync]
    with tempfile.TemporaryDirectory(dir=asked.directory) as made:
        fds = []
        for number in range(len(ways)):
            path = filled(Path(made)).rename(Path(made) / f"{number}")
            fds.append(os.open(path, os.O_RDWR))
        taken_us: list[list[float]] = [[] for _ in ways]
        for number in range(asked.rounds):
            for fd, way, taken in zip(fds, ways, taken_us, strict=True):
                began = time.perf_counter()
                way(fd, frame, number * FRAME_BYTES % SEGMENT_BYTES)
                taken.append((time.perf_counter() - began) * 1e6)
        for way, taken in zip(ways, taken_us, strict=True):
            say(way.__name__, taken)
        for fd in fds:
            os.close(fd)


if __name__ == "__main__":
    main()
