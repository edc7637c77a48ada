"""Disk and memory stay bounded under every kind of traffic, and an idle server writes nothing.

What is live is measured by a rewrite of the whole log, not taken from the counter that the cleaner goes by.
"""

from __future__ import annotations

import asyncio

import pytest

from fastq.engine import EngineOptions
from fastq.engine.commands import Submit
from fastq.log.memory import MemoryLog
from tests.core.disk import Disk, Frame
from tests.engine.traffic import KINDS, Step, Traffic
from tests.engines import CLIENT, Hand, Running, running, until

SEGMENT_BYTES = 256 << 10
FREED_PARTS = 10  # how much traffic there is: the cleaner has freed so many parts
STEPS_MAX = 4000
SHAPES = {"little slack": (512, 2), "large blocks": (4096, 5)}  # align, segments of slack


def live_bytes(log: MemoryLog, now_us: int) -> int:
    """The bytes that a rewrite of everything that is live takes."""
    disk = Disk()
    disk.frames = [Frame(kept.seq, kept.segment, kept.records) for kept in log._frames]
    disk.seq = disk.frames[-1].seq
    return disk.rewritten_bytes(now_us)


async def is_quiet(r: Running) -> bool:
    """Whether some ticks pass without a write."""
    before = r.log.tail.closed_bytes, r.engine.cleaner.freed_parts
    for _ in range(20):
        r.engine.run_due()
        for _ in range(20):
            await asyncio.sleep(0)
    return before == (r.log.tail.closed_bytes, r.engine.cleaner.freed_parts)


async def within_bound(r: Running, slack_bytes: int) -> None:
    """An idle server comes to rest within its bound."""
    await until(lambda: is_quiet(r))
    assert not r.engine.cleaner.is_behind
    live = live_bytes(r.log, r.hand.us)
    assert live == r.core.live_bytes
    assert r.log.used_bytes <= 2 * live + slack_bytes
    r.core.check()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_the_log_keeps_its_bound(kind: Step, shape: str) -> None:
    align, slack_segments = SHAPES[shape]
    slack_bytes = slack_segments * SEGMENT_BYTES
    options = EngineOptions(
        lease_check_ms=10, retention_acked_ms=5000, retention_dead_ms=1 << 40, log_slack_bytes=slack_bytes,
        idempotency_ms=60_000,
    )  # fmt: skip
    log: MemoryLog = MemoryLog(segment_bytes=SEGMENT_BYTES, align=align, cache_bytes=16 << 10)
    hand = Hand()
    for _ in range(2):  # the second time after a crash
        async with running(log, hand, options) as r:
            await within_bound(r, slack_bytes)
            traffic = Traffic(r)
            while r.engine.cleaner.freed_parts < FREED_PARTS:
                await kind(traffic)
                traffic.n += 1
                assert traffic.n < STEPS_MAX, "nothing is cleaned"
                lag_bytes = r.engine.cleaner.bound_bytes // 4 + 6 * SEGMENT_BYTES
                assert log.used_bytes <= r.engine.cleaner.bound_bytes + lag_bytes, "the cleaner does not keep up"
            await within_bound(r, slack_bytes)
            log = r.log.crash()


async def test_what_cleaning_cannot_free_is_cleaned_once() -> None:
    """Documents of a little more than half a segment, and no slack: no rewrite brings the log to its bound."""
    log = MemoryLog(segment_bytes=SEGMENT_BYTES, align=512, cache_bytes=0)
    hand, options = Hand(), EngineOptions(lease_check_ms=10, log_slack_bytes=1)
    for _ in range(2):
        async with running(log, hand, options) as r:
            traffic = Traffic(r)
            for at in range(30):
                await traffic.ask("put_document", 7, f"d{at}", bytes(131_000))
            await until(lambda: is_quiet(r))
            assert r.log.used_bytes > 2 * r.core.live_bytes + 1, "the bound is reached"
            await r.submit(CLIENT, Submit(b"1"))  # not refused
            for at in range(29):
                with r.engine.group(1000) as group:
                    group.drop_document(7, f"d{at}")
                await r.engine.durable()
            await until(lambda: is_quiet(r))
            assert r.log.used_bytes <= 4 * SEGMENT_BYTES, "there is something to free again"
            for at in range(30):
                await traffic.ask("put_document", 7, f"d{at}", bytes(131_000))
            log = r.log.crash()
