"""Bulk changes that run in the server: progress, stop, continue, who sees them, and what is kept."""

from __future__ import annotations

import asyncio

import pytest

from fastq.engine.commands import Principal, Submit
from fastq.errors import OperationNotFound, TooMany, Unauthenticated
from fastq.services import operations
from fastq.services.bulk import Bulk, Filter, Order
from fastq.services.operations import KEPT_US, Operation, Operations
from tests.http.world import World, running

MINE = Principal("client_1", "client-owner", "client", frozenset())
OTHERS = Principal("client_2", "another", "client", frozenset())
ADMIN = Principal("admin_1", "root", "admin", frozenset())
DELETE = Order("delete", Filter(queue="q"), details={"filter": {"queue": "q"}})


async def caller() -> Principal:
    return MINE


async def made(world: World, count: int) -> Operations:
    world.engine.submit_many(MINE, [Submit(b"1", queue="q") for _ in range(count)])
    await world.engine.durable()
    return Operations(world.engine, Bulk(world.engine, world.node.audit))


async def ended(operation: Operation) -> None:
    while operation.task is not None:
        await asyncio.wait([operation.task])
        await asyncio.sleep(0)


def left(world: World) -> int:
    return world.engine.queue(ADMIN.sees, "q").ready


async def test_it_runs_to_its_end_without_its_caller() -> None:
    async with running() as world:
        kept = await made(world, 450)
        operation = kept.start(MINE, caller, DELETE, expected=450)
        await ended(operation)
        assert (operation.state, operation.matched, operation.changed) == ("done", 450, 450)
        assert operation.ended_us >= operation.started_us and left(world) == 0
        (entry,) = world.node.audit.page(0, 9)[0]
        assert (entry.action, entry.key_id, entry.details["changed"]) == ("jobs.delete", "client_1", 450)


async def test_it_is_stopped_and_goes_on() -> None:
    async with running() as world:
        kept = await made(world, 30)
        operation = kept.start(MINE, caller, DELETE, pace_per_s=20)
        while not operation.changed:  # noqa: ASYNC110 -- there is no event for it
            await asyncio.sleep(0)
        kept.stop(MINE, operation.id)
        await ended(operation)
        assert operation.state == "stopped" and 0 < operation.changed < 30
        assert left(world) == 30 - operation.changed
        kept.go_on(MINE, caller, operation.id)
        await ended(operation)
        assert (operation.state, operation.changed, left(world)) == ("done", 30, 0)
        assert len(world.node.audit.page(0, 9)[0]) == 1, "one entry for all of it"


async def test_it_ends_with_its_key() -> None:
    async with running() as world:
        kept = await made(world, 300)
        asked = 0

        async def until_revoked() -> Principal:
            nonlocal asked
            asked += 1
            if asked > 4:
                raise Unauthenticated("API key has been revoked")
            return MINE

        operation = kept.start(MINE, until_revoked, DELETE)
        await ended(operation)
        assert operation.state == "stopped" and operation.error and left(world) == 300 - operation.changed > 0


async def test_who_sees_it() -> None:
    async with running() as world:
        kept = await made(world, 1)
        operation = kept.start(MINE, caller, DELETE)
        await ended(operation)
        assert kept.list(MINE) == kept.list(ADMIN) == [operation] and kept.list(OTHERS) == []
        for act in (kept.show, kept.stop):
            with pytest.raises(OperationNotFound):
                act(OTHERS, operation.id)


async def test_few_run_and_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "RUNNING_MAX", 2)
    monkeypatch.setattr(operations, "OPERATIONS_KEPT", 3)
    async with running() as world:
        kept = await made(world, 20)
        slow = [kept.start(MINE, caller, DELETE, pace_per_s=1) for _ in range(2)]
        with pytest.raises(TooMany):
            kept.start(MINE, caller, DELETE)
        await kept.close()
        assert [one.state for one in slow] == ["stopped", "stopped"]
        for _ in range(5):
            await ended(kept.start(MINE, caller, DELETE))
        assert len(kept.list(MINE)) == 3 and slow[0] not in kept.list(MINE)
        world.hands.ahead_us += KEPT_US + 1
        assert kept.list(MINE) == []
