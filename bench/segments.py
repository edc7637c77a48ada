"""Compare commits to three kinds of new segment files: filled with zeros, recycled from an earlier segment, and with
blocks only reserved; and measure what filling costs the commits beside it.

python -m bench.segments [DIRECTORY] [--rounds N]; nothing else should use the disk. Prints a line for each figure.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import threading
import time
from pathlib import Path

from fastq.log.files.segments import fill_spare, write_all

SEGMENT_BYTES = 64 << 20
FRAME_BYTES = 4096
COMMITS = 2000  # of a round


def filled(directory: Path) -> Path:
    """A file made as spares are."""
    path = fill_spare(directory, SEGMENT_BYTES)
    assert path is not None
    return path


def recycled(directory: Path) -> Path:
    """A file of the same size that is full of an earlier segment's frames."""
    path = filled(directory)
    fd = os.open(path, os.O_RDWR)
    for offset in range(0, SEGMENT_BYTES, 1 << 20):
        write_all(fd, random.randbytes(1 << 20), offset)
    os.fsync(fd)
    os.close(fd)
    return path


def reserved(directory: Path) -> Path:
    path = directory / "spare-1"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.posix_fallocate(fd, 0, SEGMENT_BYTES)
    os.fsync(fd)
    os.close(fd)
    return path


def commit(fd: int, frame: bytes, number: int) -> float:
    """Write a frame and sync it. Returns microseconds."""
    began = time.perf_counter()
    write_all(fd, frame, number * FRAME_BYTES % SEGMENT_BYTES)
    os.fdatasync(fd)
    return (time.perf_counter() - began) * 1e6


def in_turn(directory: Path) -> dict[str, list[float]]:
    """Commit to the files in turn, so that a slow moment of the disk affects all. Microseconds of each, by kind."""
    files, frame = {}, random.randbytes(FRAME_BYTES)
    for number, make in enumerate((filled, recycled, reserved)):
        path = make(directory).rename(directory / f"{number}")
        files[make.__name__] = os.open(path, os.O_RDWR)
        path.unlink()
    taken_us: dict[str, list[float]] = {kind: [] for kind in files}
    for number in range(COMMITS):
        for kind, fd in files.items():
            taken_us[kind].append(commit(fd, frame, number))
    for fd in files.values():
        os.close(fd)
    return taken_us


def say(what: str, taken_us: list[float]) -> None:
    cuts = statistics.quantiles(taken_us, n=1000)
    print(
        f"{what}: {len(taken_us)} commits, mean {statistics.fmean(taken_us):.0f} us, "
        f"p50 {cuts[499]:.0f}, p99 {cuts[989]:.0f}, p99.9 {cuts[998]:.0f}, max {max(taken_us):.0f}"
    )


def while_filling(directory: Path, rounds: int) -> None:
    """Commit beside a thread that fills spares; print the times of both."""
    path = filled(directory)
    fd, frame = os.open(path, os.O_RDWR), random.randbytes(FRAME_BYTES)
    path.unlink()
    took_s: list[float] = []
    done = threading.Event()

    def fill() -> None:
        for _ in range(rounds):
            began = time.perf_counter()
            filled(directory).unlink()
            took_s.append(time.perf_counter() - began)
        done.set()

    filling = threading.Thread(target=fill)
    filling.start()
    taken_us = []
    while not done.is_set():
        taken_us.append(commit(fd, frame, len(taken_us)))
    filling.join()
    os.close(fd)
    say("while spares are filled", taken_us)
    print(f"a spare takes {statistics.fmean(took_s) * 1e3:.0f} ms while commits run")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", default=".")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.directory) as made:
        directory = Path(made)
        began = time.perf_counter()
        for _ in range(asked.rounds):
            filled(directory).unlink()
        print(f"a spare takes {(time.perf_counter() - began) / asked.rounds * 1e3:.0f} ms alone")
        kinds: dict[str, list[float]] = {"filled": [], "recycled": [], "reserved": []}
        for _ in range(asked.rounds):
            for kind, taken_us in in_turn(directory).items():
                kinds[kind] += taken_us
        for kind, taken_us in kinds.items():
            say(kind, taken_us)
        while_filling(directory, asked.rounds)


if __name__ == "__main__":
    main()
