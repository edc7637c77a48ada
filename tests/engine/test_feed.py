"""The feed: durable changes to those who watch, in order and without gaps, or with word of what is missing."""

from __future__ import annotations

import asyncio

from fastq._core import ALL, JobChange
from fastq.engine.commands import Ack, Lease, Submit
from fastq.engine.feed import Changed, Subscription
from tests.engines import CLIENT, WORKER, is_pending, running

PAYLOAD = b'"x"'


async def read(subscription: Subscription, count: int) -> list[JobChange]:
    """The next changes, none of which is missing."""
    found: list[JobChange] = []
    while len(found) < count:
        batch = await anext(subscription)
        assert not batch.lost and batch.left_out == 0
        found += batch.changes
    assert len(found) == count
    return found


async def next_of(subscription: Subscription) -> Changed:
    return await anext(subscription)


async def test_a_subscriber_sees_each_change_once_in_order() -> None:
    async with running() as r:
        await r.submit(CLIENT, Submit(PAYLOAD))
        with r.engine.feed.subscribe() as changes:
            job_id = await r.submit(CLIENT, Submit(PAYLOAD, queue="mail"))
            leased = await r.lease_one(Lease(queues=("mail",)))
            await r.ask.ack(WORKER, Ack(job_id, leased.token))
            found = await read(changes, 3)
            assert [change.what for change in found] == ["submitted", "leased", "acked"]
            assert [change.state for change in found] == ["READY", "RUNNING", "ACKED"]
            assert {(change.job_id, change.queue, change.group, change.owner_id) for change in found} == {
                (job_id, "mail", "", "ann")
            }
            assert [change.seq for change in found] == [found[0].seq + i for i in range(3)]
            waiting = asyncio.ensure_future(next_of(changes))
            assert await is_pending(waiting)
            waiting.cancel()


async def test_nothing_is_shown_before_it_is_durable() -> None:
    async with running() as r:
        with r.engine.feed.subscribe() as changes:
            r.log.hold()
            r.engine.submit(CLIENT, Submit(PAYLOAD))
            waiting = asyncio.ensure_future(next_of(changes))
            assert await is_pending(waiting)
            r.log.release()
            assert [change.what for change in (await waiting).changes] == ["submitted"]


async def test_who_comes_back_goes_on_where_it_was() -> None:
    async with running() as r:
        with r.engine.feed.subscribe() as changes:
            await r.submit_many(CLIENT, [Submit(PAYLOAD)] * 3)
            seen = (await read(changes, 3))[1].seq
        assert r.engine.feed.subscribers == 0 and r.engine.commits.on_durable is None
        await r.submit(CLIENT, Submit(PAYLOAD))
        with r.engine.feed.subscribe(seen) as changes:
            assert [change.seq for change in await read(changes, 2)] == [seen + 1, seen + 2]
            with r.engine.feed.subscribe(seen + 1000) as other:
                batch = await anext(other)
                assert batch.lost, "a number that this server has not given is taken for its own"


async def test_changes_that_are_too_many_are_counted() -> None:
    async with running() as r:
        with r.engine.feed.subscribe() as changes:
            r.hand.us += 1_000_000
            await r.submit_many(CLIENT, [Submit(PAYLOAD)] * 500)
            batch = await anext(changes)
            assert (len(batch.changes), batch.left_out, batch.lost) == (200, 300, False)
            r.hand.us += 1_000_000
            await r.submit(CLIENT, Submit(PAYLOAD))
            batch = await anext(changes)
            assert (len(batch.changes), batch.left_out) == (1, 0)


async def test_a_slow_subscriber_is_told_what_it_lost() -> None:
    async with running() as r:
        await r.submit(CLIENT, Submit(PAYLOAD))
        with r.engine.feed.subscribe() as slow, r.engine.feed.subscribe() as fast:
            read_by_fast = 0
            for _ in range(10):
                r.hand.us += 1_000_000
                await r.submit_many(CLIENT, [Submit(PAYLOAD)] * 150)
                read_by_fast += len(await read(fast, 150))
            batch = await anext(slow)
            assert batch.lost and batch.changes[0].seq == r.core.changes(0, 1 << 62, 1)[2]
            assert read_by_fast == 1500
            rest = [len(batch.changes)]
            while sum(rest) < 1024:
                batch = await anext(slow)
                assert not batch.lost
                rest.append(len(batch.changes))


async def test_subscriptions_end_when_the_server_drains() -> None:
    async with running() as r:
        with r.engine.feed.subscribe() as changes:
            waiting = asyncio.ensure_future(next_of(changes))
            assert await is_pending(waiting)
            r.engine.drain()
            try:
                await waiting
            except StopAsyncIteration:
                pass
            else:
                raise AssertionError("the subscription goes on")
            assert [batch async for batch in r.engine.feed.subscribe()] == []


async def test_a_subscriber_is_woken_at_most_20_times_a_second() -> None:
    async with running() as r:
        with r.engine.feed.subscribe() as changes:
            woken = 0

            async def watch() -> None:
                nonlocal woken
                async for _ in changes:
                    woken += 1

            loop = asyncio.get_running_loop()
            watching, begun_s = asyncio.ensure_future(watch()), loop.time()
            for _ in range(100):
                await r.submit(CLIENT, Submit(PAYLOAD))
            assert woken <= (loop.time() - begun_s) * 20 + 2
            watching.cancel()


async def test_each_frame_is_timed_once() -> None:
    async with running() as r:
        before = sum(r.engine.commits.durations.counts)
        for _ in range(5):
            await r.submit(CLIENT, Submit(PAYLOAD))
        assert sum(r.engine.commits.durations.counts) == before + 5
        assert r.engine.commits.durations.sum_us > 0
        assert r.engine.sync_durations is None
        assert r.engine.traffic().submitted == 5
        assert r.engine.queue(ALL, "default").in_per_s == 0.5
