"""Bodies with thousands of members: no turn of the loop makes the commands of more than a slice of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest

import fastq.http.resources.ack
import fastq.http.resources.submit
from fastq.http.long_bodies import SLICE_MEMBERS
from tests.http.wire import request_bytes
from tests.http.world import World

JOBS = 3000


class Made:
    """Counts the commands that each turn of the loop makes."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self.turn = 0
        self.of_turn: Counter[int] = Counter()
        for module, name in ((fastq.http.resources.submit, "submit_of"), (fastq.http.resources.ack, "ack_of")):
            patched.setattr(module, name, self.counting(getattr(module, name)))
        self._next()

    def _next(self) -> None:
        self.turn += 1
        self.handle = asyncio.get_running_loop().call_soon(self._next)

    def counting(self, make: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any) -> Any:
            self.of_turn[self.turn] += 1
            return make(*given)

        return counted


@pytest.fixture
async def made(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Made]:
    counted = Made(monkeypatch)
    yield counted
    counted.handle.cancel()


def batch(count: int = JOBS, **fields: Any) -> dict[str, Any]:
    return {"jobs": [{"payload": n, "tags": ["not", "plain"], "priority": -n, **fields} for n in range(count)]}


async def test_no_turn_of_the_loop_makes_more_than_a_slice(world: World, made: Made) -> None:
    reply = await world.call("client", "POST", "/jobs/batch", batch())
    ids = reply.json["job_ids"]
    assert len(ids) == len(set(ids)) == JOBS
    assert sum(made.of_turn.values()) == JOBS and max(made.of_turn.values()) <= SLICE_MEMBERS
    leased: list[dict[str, Any]] = []
    while len(leased) < JOBS:
        leased += (await world.lease({"max": 1000}))["jobs"]
    assert [job["job_id"] for job in leased] == ids
    made.of_turn.clear()
    acks = [{"job_id": job["job_id"], "lease_token": job["lease_token"]} for job in leased]
    reply = await world.call("worker", "POST", "/jobs/ack", {"acks": acks})
    assert reply.json["results"] == [{"job_id": job_id, "ok": True} for job_id in ids]
    assert sum(made.of_turn.values()) == JOBS and max(made.of_turn.values()) <= SLICE_MEMBERS


async def test_many_batches_at_once_have_one_slice_in_a_turn(world: World, made: Made) -> None:
    async def submit() -> list[str]:
        wire = await world.connect()
        await wire.send(request_bytes("POST", "/jobs/batch", (world.bearer("client"),), orjson.dumps(batch())))
        ids: list[str] = (await wire.reply()).json["job_ids"]
        return ids

    found = await asyncio.gather(*(submit() for _ in range(5)))
    assert len({job_id for ids in found for job_id in ids}) == 5 * JOBS
    assert max(made.of_turn.values()) <= SLICE_MEMBERS


async def test_a_batch_is_stored_as_one_or_not_at_all(world: World) -> None:
    jobs = batch()
    jobs["jobs"][2900]["run_at"], jobs["jobs"][2900]["delay_ms"] = "2030-01-01T00:00:00Z", 1
    reply = await world.call("client", "POST", "/jobs/batch", jobs)
    assert (reply.status, reply.error) == (400, "jobs[2900]: run_at must be left out when delay_ms is given")
    assert world.core.counts()["jobs"] == 0


async def test_a_repeated_batch_is_known_by_its_key(world: World) -> None:
    key = (("Idempotency-Key", "one"),)
    first, again = [await world.call("client", "POST", "/jobs/batch", batch(), headers=key) for _ in range(2)]
    assert (first.status, again.status) == (201, 200) and first.json["job_ids"] == again.json["job_ids"]
    other = batch()
    other["jobs"][2999]["payload"] = "other"
    assert (await world.call("client", "POST", "/jobs/batch", other, headers=key)).status == 422
    assert world.core.counts()["jobs"] == JOBS


async def test_nothing_is_stored_for_a_key_that_ends_meanwhile(world: World, made: Made) -> None:
    wire = await world.connect()
    await wire.send(request_bytes("POST", "/jobs/batch", (world.bearer("client"),), orjson.dumps(batch())))
    while not made.of_turn:  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0)
    assert (await world.call("admin", "DELETE", f"/keys/{world.key_ids['client']}")).status == 200
    assert sum(made.of_turn.values()) < JOBS
    assert (await wire.reply()).status == 401
    assert world.core.counts()["jobs"] == 0
