"""Every bit, every length, every sector of a small log: it is refused, cut, or harmless, and never wrong.

FASTQ_EVERY_BIT=1 flips all eight bits of every byte; without it, all eight where frames and heads are, and one bit of
every eighth byte elsewhere.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest

from fastq.errors import LogDamaged
from tests.log.crashes import recover
from tests.log.frames import HEAD_BYTES, SEGMENT, change, flip, read_segment
from tests.log.writer import bodies_of, write

EVERY_BIT = os.environ.get("FASTQ_EVERY_BIT") == "1"
SHAPE = {"segment_bytes": 16 << 10, "align": 512}
# The sectors of one file that are zeroed together, from each to each: quadratic in the sectors looked at.
SECTORS_MAX = 40


@pytest.fixture(params=["killed", "stopped"])
def log(request: pytest.FixtureRequest, memory_path: Path) -> Path:
    """Two lives; the second one over two segments, and killed or stopped in good order."""
    directory = memory_path / "log"
    write(directory, bodies_of([50, 700]), when_quiet=True, **SHAPE)
    write(directory, bodies_of([10, 6000, 5000, 60, 20]), close=request.param == "stopped", first=2, **SHAPE)
    return directory


class Judge:
    """Holds what a damaged log gives against what the sound one gave."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.whole = recover(directory)
        self.stopped = any(frame.flags == 2 for path in segments(directory) for frame in read_segment(path).frames)
        self.counts: Counter[str] = Counter()

    def judge(self, what: str) -> str:
        """Asserts that nothing is wrong, and nothing lost but the very last frame of a log that was killed."""
        try:
            found = recover(self.directory)
        except LogDamaged as refusal:
            assert "/" in str(refusal), "a refusal names the file"
            verdict = "refused"
        else:
            assert found == self.whole[: len(found)], f"{what}: wrong content"
            missing = len(self.whole) - len(found)
            assert missing == 0 or (missing == 1 and not self.stopped), f"{what}: {missing} frames lost"
            verdict = "cut" if missing else "harmless"
        self.counts[verdict] += 1
        return verdict

    def report(self, capsys: pytest.CaptureFixture[str], title: str) -> None:
        with capsys.disabled():
            print(f"\n{title}: {dict(self.counts)}, wrong content 0")


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("segment-*"))


def held(path: Path) -> set[int]:
    """The offsets of bytes that say something."""
    segment = read_segment(path)
    offsets = set(range(SEGMENT.size))
    for frame in segment.frames:
        offsets |= set(range(frame.offset, frame.offset + HEAD_BYTES + min(frame.record_bytes, 600)))
    return offsets


def test_every_flipped_bit(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge, rng = Judge(log), random.Random(1)
    for path in [*segments(log), log / "database"]:
        says = held(path) if path.name != "database" else set(range(path.stat().st_size))
        for offset in range(path.stat().st_size):
            bits = list(range(8)) if EVERY_BIT else [rng.randrange(8)] if offset in says or offset % 16 == 0 else []
            for bit in bits:
                flip(path, offset, bit)
                verdict = judge.judge(f"{path.name} byte {offset} bit {bit}")
                assert verdict != "harmless" or offset not in says, f"{path.name} byte {offset} bit {bit} was not seen"
                flip(path, offset, bit)
    judge.report(capsys, f"bit flips of {log.name}, stopped {judge.stopped}")
    assert judge.counts["refused"] > 1000


def test_every_length(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = Judge(log)
    for path in [*segments(log), log / "database"]:
        content = path.read_bytes()
        for size in range(0, len(content), 1 if EVERY_BIT else 7):
            os.truncate(path, size)
            verdict = judge.judge(f"{path.name} of {size} bytes")
            # What was shortened may lose its seal again: the segment after it says where it ends.
            assert verdict == "refused" or (verdict == "harmless" and path.name == "segment-00000001")
            change(path, size, content[size:])
    judge.report(capsys, f"truncations, stopped {judge.stopped}")


def test_every_range_of_sectors_zeroed_or_left_over(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Zeros, and what another segment has at the same place."""
    judge = Judge(log)
    paths = segments(log)
    foreign = paths[1].read_bytes()
    for path in paths:
        content = path.read_bytes()
        used = max((frame.offset + HEAD_BYTES + frame.record_bytes for frame in read_segment(path).frames), default=512)
        sectors = range(min(SECTORS_MAX, used // 512 + 1))
        for first, last in combinations([s for s in sectors if s == 0 or s >= 8], 2):
            start, end = first * 512, min(last * 512, len(content))
            fills: list[Callable[[int], bytes]] = [bytes, lambda size, at=start: foreign[at : at + size]]  # type: ignore[misc]
            for fill in fills:
                change(path, start, fill(end - start))
                damaged = judge_range(judge, path, start, end)
                change(path, start, content[start:end])
                assert damaged
    judge.report(capsys, f"ranges, stopped {judge.stopped}")


def judge_range(judge: Judge, path: Path, start: int, end: int) -> bool:
    """A whole run of frames at the very end may be gone without a trace: that is the limit that the docs state."""
    tail = [path for path in segments(judge.directory) if read_segment(path).frames]
    try:
        found = recover(judge.directory)
    except LogDamaged:
        judge.counts["refused"] += 1
        return True
    assert found == judge.whole[: len(found)], f"{path.name} {start}-{end}: wrong content"
    lost = len(judge.whole) - len(found)
    judge.counts["harmless" if lost == 0 else "cut"] += 1
    return lost <= 1 or path >= tail[-1]


def test_every_missing_or_swapped_file(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = Judge(log)
    paths = segments(log)
    for path in [*paths, log / "database"]:
        aside = log / "aside"
        os.rename(path, aside)
        used = path.name == "database" or read_segment(aside).frames or path != paths[-1]
        assert judge.judge(f"without {path.name}") == ("refused" if used else "harmless")
        os.rename(aside, path)
    for one, other in combinations(paths, 2):
        swap(one, other)
        assert judge.judge(f"{one.name} and {other.name} swapped") == "refused"
        swap(one, other)
    judge.report(capsys, f"missing and swapped, stopped {judge.stopped}")


def swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    shutil.move(one, aside)
    shutil.move(other, one)
    shutil.move(aside, other)
