"""Lease requests that wait: an event wakes them, first come first served, and a closed connection loses no job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

from fastq._core import ALL
from fastq.engine import EngineOptions
from fastq.engine.commands import Ack, Lease, Submit
from fastq.engine.results import LeasedJob
from fastq.engine.waiting import SERVED_AT_ONCE
from fastq.log.memory import MemoryLog
from tests.engines import CLIENT, WORKER, Hand, Running, is_pending, running, until

# The check interval is a minute: a request that is woken in time was woken by an event.
EVENTS_ONLY = EngineOptions(lease_check_ms=60_000)


class Slow(MemoryLog):
    """A log without a cache. Reads return when the test says so."""

    def __init__(self) -> None:
        super().__init__(cache_bytes=0)
        self.reads_wait = True
        self.reading = asyncio.Event()

    async def read(self, places: Sequence[Any]) -> list[bytes]:
        await self.reading.wait()
        return await super().read(places)


class Line:
    """A connection that the test can close."""

    def __init__(self) -> None:
        self.is_closed = False
        self.callbacks: list[Callable[[], None]] = []

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def close(self) -> None:
        self.is_closed = True
        for callback in list(self.callbacks):
            callback()


def wait_for(r: Running, line: Line | None = None, **asked: object) -> asyncio.Task[list[LeasedJob]]:
    command = Lease(had_body=True, wait_ms=60_000, **asked)  # type: ignore[arg-type]
    return asyncio.create_task(r.ask.lease(WORKER, command, line))


async def test_a_submit_wakes_the_oldest_waiting_request() -> None:
    async with running(options=EVENTS_ONLY) as r:
        waiting = []
        for _ in range(5):
            waiting.append(wait_for(r))
            assert await is_pending(waiting[-1])
        for i, task in enumerate(waiting):
            job_id = await r.submit(CLIENT, Submit(b"1"))
            (leased,) = await task
            assert leased.job_id == job_id
            assert not any(other.done() for other in waiting[i + 1 :])


async def test_a_batch_wakes_one_request_for_each_job() -> None:
    async with running(options=EVENTS_ONLY) as r:
        waiting = [wait_for(r) for _ in range(4)]
        assert await is_pending(waiting[0])
        ids = await r.submit_many(CLIENT, [Submit(b"1") for _ in range(3)])
        granted = [(await task)[0].job_id for task in waiting[:3]]
        assert granted == ids
        assert await is_pending(waiting[3])


async def test_waiting_requests_come_before_new_ones() -> None:
    async with running(options=EVENTS_ONLY) as r:
        waiting = wait_for(r)
        assert await is_pending(waiting)
        submit = asyncio.create_task(r.submit(CLIENT, Submit(b"1")))
        asking = asyncio.create_task(r.ask.lease(WORKER, Lease()))
        assert await asking == []
        assert (await waiting)[0].job_id == await submit


async def test_a_request_waits_only_for_its_queues() -> None:
    async with running(options=EVENTS_ONLY) as r:
        mail = wait_for(r, queues=("mail",))
        both = wait_for(r, queues=("mail", "film"), limit=10)
        assert await is_pending(mail)
        await r.submit(CLIENT, Submit(b"1"))  # of queue default: no request waits for it
        assert await is_pending(mail)
        assert await is_pending(both)
        film = await r.submit(CLIENT, Submit(b"2", queue="film"))
        assert [leased.job_id for leased in await both] == [film]
        sent = await r.submit(CLIENT, Submit(b"3", queue="mail"))
        assert [leased.job_id for leased in await mail] == [sent]


async def test_queues_are_served_in_order_up_to_the_limit() -> None:
    async with running(options=EVENTS_ONLY) as r:
        low = [await r.submit(CLIENT, Submit(b"1", queue="low", priority=9)) for _ in range(3)]
        high = [await r.submit(CLIENT, Submit(b"1", queue="high")) for _ in range(3)]
        leased = await r.ask.lease(WORKER, Lease(queues=("high", "none", "low"), limit=5, had_body=True))
        assert [lease.job_id for lease in leased] == [*high, *low[:2]]


async def test_delayed_jobs_retries_and_expired_leases_wake_requests() -> None:
    hand = Hand()
    async with running(hand=hand, options=EngineOptions(lease_check_ms=10), jitter=1.0) as r:
        job_id = await r.submit(CLIENT, Submit(b"1", delay_ms=1000, max_retries=9))

        def leases() -> int:
            return r.core.job(hand.us, ALL, job_id).lease_no

        for ended_by in ("delay", "error", "expiry"):
            task = wait_for(r, lease_ms=1000)
            assert await is_pending(task)

            async def is_granted(task: asyncio.Task[list[LeasedJob]] = task, before: int = leases()) -> bool:
                if leases() == before:  # else the lease just granted would expire
                    hand.us += 10_000_000
                return task.done()

            await until(is_granted)
            (leased,) = task.result()
            assert leased.job_id == job_id, ended_by
            if ended_by == "delay":
                await r.ask.ack(WORKER, Ack(job_id, leased.token, error="boom"))


async def test_who_was_cancelled_waits_no_more_and_gets_no_job() -> None:
    async with running(options=EVENTS_ONLY) as r:
        given_up = wait_for(r, request_id="r1")
        assert await is_pending(given_up)
        given_up.cancel()
        with suppress(asyncio.CancelledError):
            await given_up
        assert r.engine._leases.waiters.count == 0
        waiting = wait_for(r)
        assert await is_pending(waiting)
        job_id = await r.submit(CLIENT, Submit(b"1"))
        assert [leased.job_id for leased in await waiting] == [job_id]


async def test_a_wait_ends_by_time_and_by_drain() -> None:
    async with running(options=EVENTS_ONLY) as r:
        assert await r.ask.lease(WORKER, Lease(had_body=True, wait_ms=10)) == []
        task = wait_for(r)
        assert await is_pending(task)
        r.engine.drain()
        assert await task == []
        assert r.engine._leases.waiters.count == 0


async def test_a_closed_connection_ends_its_wait_and_gets_no_job() -> None:
    async with running(options=EVENTS_ONLY) as r:
        line = Line()
        gone, next_one = wait_for(r, line), wait_for(r)
        assert await is_pending(gone)
        line.close()
        assert await gone == []
        await r.submit(CLIENT, Submit(b"1"))
        assert len(await next_one) == 1


async def test_a_connection_that_closes_while_payloads_are_read_returns_its_leases() -> None:
    async with running(Slow(), options=EVENTS_ONLY) as r:
        job_id = await r.submit(CLIENT, Submit(b"1"))
        line = Line()
        task = asyncio.create_task(r.ask.lease(WORKER, Lease(had_body=True), line))
        assert await is_pending(task)
        line.close()
        r.log.reading.set()
        assert await task == []
        assert (await r.ask.job(CLIENT, job_id)).state == "READY"


async def test_an_undelivered_lease_is_taken_back_and_counts_no_attempt() -> None:
    async with running(options=EVENTS_ONLY) as r:
        first = await r.submit(CLIENT, Submit(b"1", max_retries=1))
        await r.submit(CLIENT, Submit(b"2"))
        r.engine.take_back([await r.lease_one(Lease(had_body=True))])
        assert (await r.ask.job(CLIENT, first)).state == "READY"
        leased = await r.lease_one(Lease(had_body=True))
        assert (leased.job_id, leased.attempt) == (first, 1), "it keeps its place in the order"


async def test_a_repeated_request_id_gets_the_same_leases_also_after_a_crash() -> None:
    hand = Hand()
    async with running(hand=hand, options=EVENTS_ONLY) as r:
        for _ in range(4):
            await r.submit(CLIENT, Submit(b"1"))
        asked = Lease(had_body=True, limit=2, request_id="r1", lease_ms=600_000)
        leased = await r.ask.lease(WORKER, asked)
        assert await r.ask.lease(WORKER, asked) == leased
        await r.ask.ack(WORKER, Ack(leased[0].job_id, leased[0].token))
        assert await r.ask.lease(WORKER, asked) == leased[1:], "an acked job is not leased again"
        log = r.log.crash()
    async with running(log, hand, EVENTS_ONLY) as r:
        assert await r.ask.lease(WORKER, asked) == leased[1:]
        hand.us += 60_000_000
        later = await r.ask.lease(WORKER, asked)
        assert len(later) == 2 and leased[1] not in later, "after a minute the request_id is new"


async def test_a_repeated_request_id_replaces_the_waiting_request() -> None:
    async with running(options=EVENTS_ONLY) as r:
        first = wait_for(r, request_id="r1")
        assert await is_pending(first)
        second = wait_for(r, request_id="r1")
        assert await first == []
        await r.submit(CLIENT, Submit(b"1"))
        assert len(await second) == 1


async def test_the_payloads_of_one_lease_answer_are_bounded() -> None:
    async with running(options=EVENTS_ONLY) as r:
        payload = b'"' + b"x" * (1 << 20) + b'"'
        for _ in range(12):
            await r.submit(CLIENT, Submit(payload))
        first = await r.ask.lease(WORKER, Lease(had_body=True, limit=100))
        rest = await r.ask.lease(WORKER, Lease(had_body=True, limit=100))
        assert (len(first), len(rest)) == (7, 5)


async def test_many_waiting_requests_are_served_in_slices_in_order() -> None:
    """Each turn of the loop leases a bounded number of jobs; a later request does not overtake the rest."""
    async with running(options=EVENTS_ONLY) as r:
        waiting = [wait_for(r) for _ in range(5 * SERVED_AT_ONCE)]
        assert await is_pending(waiting[-1])
        running_jobs = [0]
        ids, _ = r.engine.submit_many(CLIENT, [Submit(b"1") for _ in range(len(waiting) + 1)])
        turns = 0
        late: asyncio.Task[list[LeasedJob]] | None = None
        while running_jobs[-1] < len(waiting):
            await asyncio.sleep(0)
            turns += 1
            running_jobs.append(r.engine.counts()["RUNNING"])
            if late is None and running_jobs[-1]:
                late = wait_for(r)
            assert turns < 1_000
        steps = [after - before for before, after in pairwise(running_jobs)]
        assert max(steps) <= SERVED_AT_ONCE and sum(step > 0 for step in steps) >= 5
        granted = [(await task)[0].job_id for task in waiting]
        assert late is not None
        assert [*granted, (await late)[0].job_id] == [job_id for job_id, _ in ids]


async def test_a_reader_that_leaves_before_the_commit_leaves_nothing() -> None:
    async with running(options=EVENTS_ONLY) as r:
        for _ in range(100):
            job_id = await r.submit(CLIENT, Submit(b"1"))
            line = Line()
            reader = asyncio.create_task(r.ask.job_at_end(CLIENT, job_id, 60_000, line))
            assert await is_pending(reader)
            r.engine.cancel(CLIENT, job_id, force=False)
            line.close()
            await reader
        await r.engine.durable()
        assert r.core.take_ended() == []
        assert r.engine._reads.end_waiters.count == 0


async def test_a_request_that_is_cancelled_after_it_was_granted_gives_its_leases_back() -> None:
    """Its task learns of the cancel before it learns of the leases."""
    async with running(options=EVENTS_ONLY) as r:
        waiting = wait_for(r)
        assert await is_pending(waiting)
        job_id, _ = r.engine.submit(CLIENT, Submit(b"1"))
        r.engine.serve_waiters(Lease())
        assert r.core.job(r.hand.us, ALL, job_id).state == "RUNNING"
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await r.ask.job(CLIENT, job_id)).state == "READY"
        leased = await r.lease_one(Lease(had_body=True))
        assert (leased.job_id, leased.attempt) == (job_id, 1)
