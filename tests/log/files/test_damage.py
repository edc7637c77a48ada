"""Damage to every byte of a small log: it is refused or cut at its very end, and never returns wrong content.

By default one bit of each byte is flipped; FASTQ_DAMAGE_BITS=8 flips all of them.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastq._core import Core, CoreSettings, Tail
from fastq.errors import LogDamaged, UnsupportedFormat
from fastq.log.files.recovery import read_log
from tests.log.files.frames import read_segment
from tests.log.files.writer import KIND, write

pytestmark = pytest.mark.slow

BITS = int(os.environ.get("FASTQ_DAMAGE_BITS", "1"))
SEGMENT_BYTES = 16 << 10
BODIES = [bytes([65 + i]) * size for i, size in enumerate([300, 700, 2000, 40, 900, 1500, 60, 500, 1200, 800, 300, 90])]
ALL = {str(i): body for i, body in enumerate(BODIES)}


@pytest.fixture(params=["killed", "stopped"])
def log(request: pytest.FixtureRequest, memory_path: Path) -> Path:
    """A log of several segments, killed or closed."""
    directory = memory_path / "log"
    write(directory, BODIES, close=request.param == "stopped", segment_bytes=SEGMENT_BYTES)
    return directory


def judge(directory: Path, counts: Counter[str], lost_max: int = 1) -> None:
    """Read the log and count the outcome. The content must be as written, except for lost frames at the end.

    Args:
        lost_max: how many frames at the end may be lost; more than one only if nothing of them is left.
    """
    core = Core(Tail(512, 0, 4096), CoreSettings())
    try:
        found = read_log(directory, core.replay)
        for frame in found.pending:
            core.replay(memoryview(frame.records), frame.seq)
    except (LogDamaged, UnsupportedFormat):
        counts["refused"] += 1
        return
    documents = core.documents(KIND)
    if documents == ALL:
        counts["unharmed"] += 1
    else:
        first = dict(list(ALL.items())[: len(documents)])
        assert documents == first, "what is read is not what was written"
        assert len(documents) >= len(ALL) - lost_max, "acknowledged data was lost"
        counts["cut"] += 1


def used_files(directory: Path) -> Iterator[tuple[Path, int]]:
    """Each segment with frames, and the end of the last of them."""
    for path in sorted(directory.glob("segment-*")):
        frames = read_segment(path).frames
        if frames:
            yield path, frames[-1].offset + 64 + frames[-1].record_bytes


def test_bit_flips(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts: Counter[str] = Counter()
    rng = random.Random(5)
    judge(log, counts)
    assert counts == {"unharmed": 1}
    for path, end in used_files(log):
        data = bytearray(path.read_bytes())
        with path.open("r+b", buffering=0) as file:
            for at in range(end):
                for bit in rng.sample(range(8), BITS):
                    os.pwrite(file.fileno(), bytes([data[at] ^ 1 << bit]), at)
                    judge(log, counts)
                os.pwrite(file.fileno(), data[at : at + 1], at)
    with capsys.disabled():
        print(f"\nbit flips ({log.parent.name}): {dict(counts)}, wrong content 0")
    assert counts["refused"] > 1000


def test_truncations(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts: Counter[str] = Counter()
    for path, end in used_files(log):
        data = path.read_bytes()
        for size in range(end):
            os.truncate(path, size)
            judge(log, counts)
            if size % 256 == 0:
                path.write_bytes(data)
        path.write_bytes(data)
    with capsys.disabled():
        print(f"\ntruncations: {dict(counts)}, wrong content 0")
    assert set(counts) == {"refused"}, "a file that is shorter than its head says is not the log's doing"


def test_zeroed_ranges(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts: Counter[str] = Counter()
    rng = random.Random(6)
    for path, end in used_files(log):
        data = path.read_bytes()
        last = read_segment(path).frames[-1].offset
        with path.open("r+b", buffering=0) as file:
            for _ in range(1500):
                begin = rng.randrange(end)
                size = rng.choice([1, 64, 512, 4096, end])
                size = min(size, len(data) - begin)
                os.pwrite(file.fileno(), bytes(size), begin)
                # Zeros from some frame on into the last one's head leave nothing that tells of any of them.
                judge(log, counts, lost_max=len(ALL) if begin + size > last else 1)
                os.pwrite(file.fileno(), data, 0)
    with capsys.disabled():
        print(f"\nzeroed ranges: {dict(counts)}, wrong content 0")
    assert counts["refused"] > 1000
