"""How large a batch may be: 10,000 jobs of any kind within 8 MiB, and the same limit both ways."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from fastq.engine.commands import BATCH_BYTES_MAX, BATCH_JOBS_MAX, OPS_MAX, TAG_BYTES_MAX
from fastq.log.files.sizes import SMALL_SEGMENT_BYTES
from fastq.log.memory import MemoryLog
from tests.http.world import World, running

TAGS = [str(number) + "t" * (TAG_BYTES_MAX - 1) for number in range(10)]


def replacing(i: int, **more: Any) -> dict[str, Any]:
    return {"payload": i, "unique_key": f"{i:05}", "on_duplicate": "replace", **more}


@pytest.mark.slow
async def test_every_job_of_the_largest_batch_may_replace_another(world: World) -> None:
    """The replaced jobs have all the options that take room, and a history."""
    long = {"tags": TAGS, "group": "g" * 64, "max_retries": 7}
    for first in range(0, BATCH_JOBS_MAX, 5_000):
        jobs = [replacing(i, **long) for i in range(first, first + 5_000)]
        assert (await world.call("client", "POST", "/jobs/batch", {"jobs": jobs})).status == 201
    keys = [f"{'k' * 195}{i:05}" for i in range(BATCH_JOBS_MAX)]
    jobs = [replacing(i, idempotency_key=key, payload="p" * 400) for i, key in enumerate(keys)]
    for jobs_sent in (jobs, [replacing(i, payload="p" * 700) for i in range(BATCH_JOBS_MAX)]):
        reply = await world.call("client", "POST", "/jobs/batch", {"jobs": jobs_sent})
        assert reply.status == 200, reply.body[:300]
        assert reply.json["duplicates"] == list(range(BATCH_JOBS_MAX))
    one_more = {"jobs": [{"payload": 1}] * (BATCH_JOBS_MAX + 1)}
    assert (
        await world.call("client", "POST", "/jobs/batch", one_more)
    ).error == f"jobs must be of length <= {BATCH_JOBS_MAX}"
    assert (await world.call("client", "POST", "/jobs/batch", b" " * (BATCH_BYTES_MAX + 1))).status == 413
    world.core.check()


LONG = {  # every option, as long as it may be
    "queue": "q" * 64, "group": "g" * 64, "tags": TAGS[:3], "lease_ms": 600_000, "max_retries": 7, "priority": -7,
    "backoff": {"base_ms": 1000, "factor": 2, "cap_ms": 3_600_000}, "expires_ms": 1_000_000_000, "delay_ms": 1000,
    "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("align", [512, 65536])
@pytest.mark.parametrize("route", ["/jobs/batch", "/transactions"])
async def test_the_largest_request_fits_the_smallest_segment_of_a_growing_log(route: str, align: int) -> None:
    """As many jobs as it may have, with every option or none, in 8 MiB."""
    is_batch = route == "/jobs/batch"
    count = BATCH_JOBS_MAX if is_batch else OPS_MAX
    async with running(log=MemoryLog(segment_bytes=SMALL_SEGMENT_BYTES, align=align)) as world:
        for number, options in enumerate([LONG, {}]):
            jobs = [{"payload": "", **options} for _ in range(count)]
            for i, job in enumerate(jobs if options else []):
                job |= {"unique_key": f"{number}-{i:05}", "idempotency_key": f"{i:05}-{number}"}
            body = {"jobs": jobs} if is_batch else {"ops": [{"submit": job} for job in jobs]}
            payload = "p" * ((BATCH_BYTES_MAX - len(compact(body))) // count)
            for job in jobs:
                job["payload"] = payload
            data = compact(body)
            assert BATCH_BYTES_MAX - count <= len(data) <= BATCH_BYTES_MAX
            key = () if options else (("Idempotency-Key", "all"),)
            reply = await world.call("admin", "POST", route, data, key)
            assert reply.status in (200, 201), reply.body[:300]
        world.core.check()


def compact(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


@pytest.mark.parametrize("segment_bytes", [64 << 10, 128 << 10, 1 << 20, 4 << 20])
@pytest.mark.parametrize("job", [{"payload": 1}, {"payload": 1, "tags": ["a"]}, {"payload": "x" * 500}], ids=str)
async def test_both_ways_have_the_same_limit_whatever_the_segments(segment_bytes: int, job: dict[str, Any]) -> None:
    async with AsyncExitStack() as stack:
        worlds = [
            await stack.enter_async_context(running(lane=lane, log=MemoryLog(segment_bytes=segment_bytes)))
            for lane in (True, False)
        ]
        for world in worlds:
            await world.call("client", "POST", "/jobs/batch", {"jobs": [job]})  # the short way knows the head
        below, above = 1, BATCH_JOBS_MAX + 1
        while above - below > 1:  # the last size that is taken, found on the reference
            size = (below + above) // 2
            reply = await worlds[1].call("client", "POST", "/jobs/batch", {"jobs": [job] * size})
            below, above = (size, above) if reply.status == 201 else (below, size)
        for size in sorted({1, below - 1, below, above, above + 1, below // 2, 2 * above}):
            for world in worlds:
                await world.hang_up()  # a connection that idled meanwhile may just be closed
            replies = [await world.call("client", "POST", "/jobs/batch", {"jobs": [job] * size}) for world in worlds]
            assert replies[0].status == replies[1].status, size
            assert (replies[1].status == 201) is (size <= below)
