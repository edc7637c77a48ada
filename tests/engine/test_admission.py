"""Admission refuses new work without room. A repeat that has its answer stores nothing, so it is answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastq.engine.commands import JobOptions, Submit, Transaction
from fastq.errors import ApiError, CleanerBehind, CommandTooLarge, IdempotencyMismatch
from fastq.log.files.log import LocalLog
from tests.engines import CLIENT, Running, running

JOB = Submit(b'"pay"', options=JobOptions(idempotency_key="one", body_digest=1))
BATCH = [Submit(b"1")] * 800
OWN_KEYS = [Submit(b"2", options=JobOptions(idempotency_key=f"own-{n}", body_digest=n)) for n in range(3)]
CHILDREN = Transaction((Submit(b'"child"'),), "children", 4)


async def answers(r: Running) -> list[object]:
    return [
        (await r.ask.submit(CLIENT, JOB))[0],
        [one[0] for one in (await r.ask.submit_many(CLIENT, BATCH, "batch", 2))[0]],
        [one[0] for one in (await r.ask.submit_many(CLIENT, OWN_KEYS))[0]],
        [one[0] for one in (await r.ask.transact(CLIENT, CHILDREN))[0]],
    ]


async def test_repeats_need_no_room() -> None:
    async with running() as r:
        first = await answers(r)
        r.engine.cleaner.wake_if_due = lambda: None  # type: ignore[method-assign]
        r.engine.cleaner.is_behind = True
        assert await answers(r) == first
        for new in (r.ask.submit(CLIENT, Submit(b"3")), r.ask.submit_many(CLIENT, [*OWN_KEYS, Submit(b"3")])):
            with pytest.raises(CleanerBehind):
                await new
        with pytest.raises(IdempotencyMismatch):
            await r.ask.submit_many(CLIENT, BATCH, "batch", 3)


async def test_a_repeat_is_answered_after_a_restart_with_smaller_segments(tmp_path: Path) -> None:
    async with running(LocalLog(tmp_path, segment_bytes=4 << 20, align=512, cache_bytes=0)) as r:
        first = await answers(r)
    async with running(LocalLog(tmp_path, segment_bytes=128 << 10, align=512, cache_bytes=0)) as r:
        assert await answers(r) == first
        with pytest.raises(CommandTooLarge) as refused:
            await r.ask.submit_many(CLIENT, BATCH, "another", 2)
        assert isinstance(refused.value, ApiError)
