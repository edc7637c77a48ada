"""Segments are prepared beside commits."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from fastq._core import Core, CoreSettings, Tail
from fastq.log.files.ready import FILL_PAUSE_S, READY_SEGMENTS, ReadySegments
from fastq.log.files.segments import FILL_STEP, SegmentHead

SEGMENT_BYTES = 4 * len(FILL_STEP)


class Noted(threading.Event):
    """Records the waits between the steps of a fill, without waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.waits_s: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits_s.append(timeout)
        return self.is_set()


@pytest.mark.parametrize(("used_share", "pause_s"), [(0.2, FILL_PAUSE_S), (0.7, 0)])
async def test_a_fill_pauses_between_steps_unless_the_segment_is_needed(
    tmp_path: Path, used_share: float, pause_s: float
) -> None:
    """Filling the reserve is urgent. The segment after it is when the one in use is more than half full."""
    tail, made, all_made = Tail(4096, 0, 64 << 10), [], asyncio.Event()
    tail.offer_segment(1, 4096, SEGMENT_BYTES)
    core = Core(tail, CoreSettings())
    while tail.room_bytes > (1 - used_share) * SEGMENT_BYTES:
        core.put_document(2, 7, "name", bytes(30_000))
    assert tail.segments_offered == 0

    def on_made(head: SegmentHead, fd: int) -> None:
        made.append(head.number)
        os.close(fd)
        if len(made) == READY_SEGMENTS:
            all_made.set()

    def on_failed(error: OSError) -> None:
        raise error

    first = SegmentHead(b"d" * 16, 1, 1, 4096, SEGMENT_BYTES, 1, 0, 7)
    ready = ReadySegments(tmp_path, tail, first, 1, [], [SEGMENT_BYTES], on_made, on_failed, os.urandom, False)
    noted = ready._stopping = Noted()
    ready.start_due(None, SEGMENT_BYTES)
    await all_made.wait()
    await ready.close()
    assert noted.waits_s == [0] * 8 + [pause_s] * 4
    assert made == [2, 3, 4]


async def test_a_paused_fill_can_be_interrupted(tmp_path: Path) -> None:
    first = SegmentHead(b"d" * 16, 1, 1, 4096, SEGMENT_BYTES, 1, 0, 7)

    def never(*_: object) -> None:
        raise AssertionError("it was broken off")

    tail = Tail(4096, 0, 64 << 10)
    ready = ReadySegments(tmp_path, tail, first, 1, [], [SEGMENT_BYTES], never, never, os.urandom, False)
    noted = ready._stopping = Noted()
    noted.set()
    assert ready._make(first) is None
    await ready.close()
    assert os.listdir(tmp_path) == []
    assert len(noted.waits_s) == 1
