"""The engine over a log that is durable when the test says so."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace

import pytest

from fastq.engine import EngineOptions
from fastq.engine.commands import Ack, JobOptions, Lease, Submit
from fastq.errors import (
    CommandTooLarge,
    CoreFailed,
    DiskFull,
    Draining,
    JobNotFound,
    LeaseLost,
    LogFailed,
    NotAckable,
    Overloaded,
)
from fastq.log.memory import MemoryLog
from tests.engines import CLIENT, OTHER, START_US, WORKER, FullDisk, Hand, fill, is_pending, running, until


def test_requests_that_arrive_together_share_a_frame() -> None:
    async def run() -> None:
        async with running() as r:
            before = r.log.tail.durable_seq
            await asyncio.gather(*(r.submit(CLIENT, Submit(b"1")) for _ in range(100)))
            assert r.log.tail.durable_seq == before + 1
            r.log.hold()
            first = asyncio.ensure_future(r.submit(CLIENT, Submit(b"1")))
            assert await is_pending(first)
            rest = []
            for _ in range(50):  # one by one, while the first frame is in flight
                rest.append(asyncio.ensure_future(r.submit(CLIENT, Submit(b"1"))))
                assert await is_pending(rest[-1])
            r.log.release()
            await asyncio.gather(first, *rest)
            assert r.log.tail.durable_seq == before + 3

    asyncio.run(run())


def test_a_job_from_submit_to_ack_is_the_same_after_a_crash() -> None:
    async def run() -> None:
        hand = Hand()
        async with running(hand=hand) as r:
            job_id = await r.submit(CLIENT, Submit(b'{"n": 1}', max_retries=2, priority=7))
            leased = await r.lease_one(Lease(lease_ms=60_000, worker_id="w1", had_body=True))
            assert (leased.job_id, leased.payload, leased.attempt, leased.priority) == (job_id, b'{"n": 1}', 1, 7)
            await r.ask.ack(WORKER, Ack(job_id, leased.token, error="boom"))
            status = await r.ask.job(CLIENT, job_id)
            assert (status.state, status.error, status.attempts) == ("RETRY", "boom", 1)
            assert status.run_at_us == hand.us + 500_000  # half of the first wait's bound of a second
            assert await r.ask.lease(WORKER, Lease()) == []
            hand.us += 500_000
            again = await r.lease_one(Lease(had_body=True))
            await r.ask.ack(WORKER, Ack(job_id, again.token, result=b'"fine"'))
            last = await r.ask.job(CLIENT, job_id)
            assert (last.state, last.result, last.error) == ("ACKED", b'"fine"', "")
            log = r.log.crash()
        async with running(log, hand) as r:
            assert await r.ask.job(CLIENT, job_id) == last
            await r.ask.ack(WORKER, Ack(job_id, again.token, result=b'"fine"'))  # a retry after a lost reply
            for wrong in [leased.token, again.token]:
                with pytest.raises(LeaseLost):
                    await r.ask.ack(WORKER, Ack(job_id, wrong, result=b'"else"'))
            with pytest.raises(NotAckable, match="ACKED"):
                await r.ask.ack(WORKER, Ack(job_id))

    asyncio.run(run())


def test_a_frame_that_was_not_durable_is_gone_after_a_crash() -> None:
    async def run(keep: bool) -> None:
        async with running() as r:
            job_id = await r.submit(CLIENT, Submit(b"1"))
            r.log.hold()
            lease = asyncio.ensure_future(r.ask.lease(WORKER, Lease(had_body=True)))
            assert await is_pending(lease)
            after = r.log.crash(keep_under_way=keep)
            lease.cancel()
            r.failures.append(RuntimeError("crashed: nothing to stop"))
        async with running(after) as r:
            assert (await r.ask.job(CLIENT, job_id)).state == ("RUNNING" if keep else "READY")

    for keep in (False, True):
        asyncio.run(run(keep))


def test_the_timer_expires_leases() -> None:
    async def run() -> None:
        hand = Hand()
        async with running(hand=hand) as r:
            job_id = await r.submit(CLIENT, Submit(b"1", max_retries=1))
            await r.ask.lease(WORKER, Lease(lease_ms=1000))
            hand.us += 1_000_001

            async def is_dead() -> bool:
                return (await r.ask.job(CLIENT, job_id)).state == "DEAD"

            await until(is_dead)
            assert (await r.ask.job(CLIENT, job_id)).error == "lease_expired"

    asyncio.run(run())


def test_the_timer_makes_delayed_jobs_ready() -> None:
    async def run() -> None:
        hand = Hand()
        async with running(hand=hand) as r:
            ids = [await r.submit(CLIENT, Submit(b"1", delay_ms=1000)) for _ in range(200)]
            assert (await r.ask.job(CLIENT, ids[0])).state == "SCHEDULED"
            hand.us += 1_000_000

            async def are_in() -> bool:
                return r.core.counts()["delayed"] == 0

            await until(are_in)
            assert [(await r.lease_one(Lease())).job_id for _ in ids] == ids

    asyncio.run(run())


def test_the_retry_wait_is_drawn_below_a_bound_that_grows_to_its_cap() -> None:
    async def run(jitter: float, waits_us: list[int]) -> None:
        options = EngineOptions(backoff_base_ms=1000, backoff_factor=2, backoff_cap_ms=5000)
        async with running(options=options, jitter=jitter) as r:
            job_id = await r.submit(CLIENT, Submit(b"1", max_retries=9))
            for wait_us in waits_us:
                leased = await r.lease_one(Lease(had_body=True))
                await r.ask.ack(WORKER, Ack(job_id, leased.token, error="boom"))
                assert (await r.ask.job(CLIENT, job_id)).run_at_us - r.hand.us == wait_us
                r.hand.us += wait_us

    asyncio.run(run(0.5, [500_000, 1_000_000, 2_000_000, 2_500_000, 2_500_000]))
    asyncio.run(run(0.0, [0, 0]))


def test_owners_see_only_their_own_jobs() -> None:
    async def run() -> None:
        async with running() as r:
            job_id = await r.submit(CLIENT, Submit(b"1"))
            assert (await r.ask.job(WORKER, job_id)).state == "READY"
            with pytest.raises(JobNotFound):
                await r.ask.job(OTHER, job_id)
            assert (await r.ask.job(replace(OTHER, isolated=False), job_id)).state == "READY"

    asyncio.run(run())


def test_payloads_and_results_that_left_the_cache_are_read_from_the_log() -> None:
    async def run() -> None:
        async with running(MemoryLog(cache_bytes=0)) as r:
            payloads = [b'"' + bytes([65 + i % 26]) * (50 + i) + b'"' for i in range(100)]
            for payload in payloads:
                await r.submit(CLIENT, Submit(payload))
            for payload in payloads:
                leased = await r.lease_one(Lease())
                assert leased.payload == payload
                await r.ask.ack(WORKER, Ack(leased.job_id, result=payload))
                assert (await r.ask.job(CLIENT, leased.job_id)).result == payload

    asyncio.run(run())


def test_a_full_disk_refuses_submits_and_leaves_room_for_acks() -> None:
    async def run() -> None:
        log = FullDisk(segment_bytes=64 * 1024, cache_bytes=0)
        async with running(log) as r:
            for _ in range(50):
                await r.submit(CLIENT, Submit(b"1"))
            leases = [await r.lease_one(Lease(had_body=True)) for _ in range(50)]
            log.disk_full = True
            with pytest.raises(DiskFull):
                await fill(r)
            assert log.tail.segments_offered == 2, "a segment is left for acks, and the cleaner's"
            for leased in leases:
                await r.ask.ack(WORKER, Ack(leased.job_id, leased.token, result=b'"' + b"r" * 500 + b'"'))
            assert r.core.counts()["ACKED"] == 50

    asyncio.run(run())


def test_without_a_ready_segment_commands_are_refused_and_leave_no_trace() -> None:
    async def run() -> None:
        log = FullDisk(segment_bytes=64 * 1024)
        async with running(log) as r:
            with pytest.raises(Overloaded):
                await fill(r)
            before = r.core.state_hash()
            for _ in range(3):
                with pytest.raises(Overloaded):
                    await fill(r)
            assert r.core.state_hash() == before
            assert r.core.counts()["READY"] > 100

    asyncio.run(run())


def test_the_largest_batches_fit() -> None:
    """Submit and lease 10,000 jobs, and ack them in one request, with the longest key names."""

    async def run() -> None:
        log = MemoryLog(segment_bytes=64 << 20)
        async with running(log) as r:
            worker = replace(WORKER, key_id="k" * 64)
            client = replace(CLIENT, key_id="k" * 64, owner_id="o" * 255)
            submits = [Submit(b'"' + b"x" * 400 + b'"', queue="q" * 64, priority=1, delay_ms=0)] * 10_000
            ids = await r.submit_many(client, submits)
            leases = []
            while len(leases) < 10_000:
                leases += await r.ask.lease(worker, Lease(had_body=True, limit=1000, queues=("q" * 64,)))
            acks = [Ack(lease.job_id, lease.token, b'"' + b"r" * 400 + b'"', error="e" * 99) for lease in leases]
            assert await r.ask.ack_many(worker, acks) == [None] * 10_000
            assert [lease.job_id for lease in leases] == ids

    asyncio.run(run())


def test_the_largest_batches_with_every_option_fit() -> None:
    """Submit 10,000 jobs with the longest options, and extend 10,000 leases in one request."""

    async def run() -> None:
        async with running(MemoryLog(segment_bytes=64 << 20)) as r:
            submits = [
                Submit(
                    b'"x"',
                    options=JobOptions(
                        group="g" * 64,
                        lease_ms=60_000,
                        backoff=(1, 2.0, 3),
                        expires_ms=3_600_000,
                        unique_key=f"{n:0200}",
                        tags=tuple(f"{i:064}" for i in range(10)),
                        traceparent="t" * 55,
                        idempotency_key=f"{n:0200}",
                        body_digest=n,
                    ),
                )
                for n in range(10_000)
            ]
            ids = await r.submit_many(CLIENT, submits)
            assert await r.submit_many(CLIENT, submits) == ids
            leases = []
            while len(leases) < 10_000:
                leases += await r.ask.lease(WORKER, Lease(had_body=True, limit=1000))
            answered = await r.ask.extend(WORKER, [(lease.job_id, lease.token) for lease in leases], 120_000)
            assert all(isinstance(one, tuple) for one in answered)

    asyncio.run(run())


def test_a_request_larger_than_a_record_is_refused() -> None:
    async def run() -> None:
        async with running(MemoryLog(segment_bytes=1 << 20)) as r:
            with pytest.raises(CommandTooLarge, match="at once"):
                await r.submit_many(CLIENT, [Submit(b"1")] * 5000)
            with pytest.raises(CommandTooLarge, match="at once"):
                await r.ask.ack_many(WORKER, [Ack("nope")] * 5000)
            assert r.core.counts()["jobs"] == 0

    asyncio.run(run())


def test_a_draining_server_takes_acks_but_no_submits() -> None:
    async def run() -> None:
        async with running() as r:
            job_id = await r.submit(CLIENT, Submit(b"1"))
            await r.ask.lease(WORKER, Lease())
            r.engine.drain()
            for request in (r.submit(CLIENT, Submit(b"1")), r.engine.lease(WORKER, Lease())):
                with pytest.raises(Draining):
                    await request
            await r.ask.ack(WORKER, Ack(job_id))
            assert (await r.ask.job(CLIENT, job_id)).state == "ACKED"

    asyncio.run(run())


def test_no_answer_leaves_after_a_failed_sync() -> None:
    async def run() -> None:
        async with running() as r:
            r.log.hold()
            submit = asyncio.ensure_future(r.submit(CLIENT, Submit(b"1")))
            assert await is_pending(submit)
            r.log.fail(OSError(5, "Input/output error"))
            assert await is_pending(submit)
            assert [type(failure) for failure in r.failures] == [LogFailed]
            later = asyncio.ensure_future(r.submit(CLIENT, Submit(b"1")))
            assert await is_pending(later)
            submit.cancel()
            later.cancel()

    asyncio.run(run())


def test_a_record_that_cannot_be_applied_ends_the_process() -> None:
    """Job numbers have 40 bits: after the last one the next submit cannot be applied."""

    async def run() -> None:
        async with running() as r:
            resume = struct.pack("<BBHIIqQQI", 2, 1, 0, 40, 0, START_US, 1, 1 << 40, 0)
            assert r.core.replay(memoryview(resume), 9) == 1
            with pytest.raises(CoreFailed):
                await r.submit(CLIENT, Submit(b"1"))
            assert [type(failure) for failure in r.failures] == [CoreFailed]

    asyncio.run(run())
