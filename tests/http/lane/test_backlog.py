"""Jobs of a backlog are no longer in the log's tail, but in the page cache: they are leased like new ones."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastq.engine.commits import READ_NOW_BYTES_MAX
from fastq.log.files._index import Span
from fastq.log.files.log import LocalLog
from tests.http.lane.test_short_way import LONG_WAY, ask, taken, warm
from tests.http.wire import Wire
from tests.http.world import World, running

SEGMENT_BYTES = 512 << 10
JOBS = 1500


class Files(LocalLog):
    """Counts what goes to the reading threads. Nothing stays in the tail."""

    def __init__(self, directory: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        super().__init__(directory, segment_bytes=segment_bytes, align=512, cache_bytes=0)
        self.pool_reads = 0

    def _read_spans(self, spans: list[Span]) -> asyncio.Future[list[bytes | OSError]]:
        self.pool_reads += 1
        return super()._read_spans(spans)

    def release(self) -> None:
        """`running` asks for it at its end: nothing was held."""


async def fill(world: World) -> None:
    for _ in range(0, JOBS, 100):
        body = {"jobs": [{"payload": {"n": n, "text": "x" * 1000}} for n in range(100)]}
        while (reply := await world.call("client", "POST", "/jobs/batch", body)).status == 503:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # until the next segment is ready
        assert reply.status == 201


async def leased(wire: Wire, world: World, body: bytes, *headers: tuple[str, str]) -> list[Any]:
    reply = await ask(wire, world, "worker", "/jobs/lease", body, *headers)
    assert reply.status == 200
    return list(reply.json["jobs"])


async def lease_all_ways(world: World, log: Files) -> None:
    """On the short way one job, then a hundred; and the same through Falcon."""
    wire = await world.connect()
    for body, times, jobs in ((b'{"max":1}', 20, 1), (b'{"max":100}', 1, 100)):
        await warm(wire, world, "worker", "/jobs/lease", body)
        before = taken(world)
        for _ in range(times):
            found = await leased(wire, world, body)
            assert len(found) == jobs
            assert all(job["payload"]["text"] == "x" * 1000 for job in found)
        assert taken(world) == before + times
        assert len(await leased(wire, world, body, LONG_WAY)) == jobs
        assert taken(world) == before + times
    assert log.pool_reads == 0


async def test_leases_over_a_backlog_in_the_page_cache_need_no_thread(tmp_path: Path) -> None:
    """In the segment that fills, in segments that this server wrote, and in those that it found."""
    log = Files(tmp_path)
    async with running(log=log, log_slack_bytes=1 << 40) as world:
        await fill(world)
        assert log.parts >= 2
        await lease_all_ways(world, log)
    log = Files(tmp_path)
    async with running(log=log, log_slack_bytes=1 << 40) as world:
        await lease_all_ways(world, log)


async def test_more_than_the_loop_may_copy_is_read_by_a_thread(tmp_path: Path) -> None:
    log = Files(tmp_path, segment_bytes=8 << 20)
    async with running(log=log, log_slack_bytes=1 << 40) as world:
        payload = "x" * 50_000
        jobs = READ_NOW_BYTES_MAX // len(payload) + 1
        for _ in range(jobs):
            await world.submit(payload)
        wire = await world.connect()
        found = await leased(wire, world, b'{"max":%d}' % jobs)
        assert [job["payload"] for job in found] == [payload] * jobs
        assert log.pool_reads == 1
