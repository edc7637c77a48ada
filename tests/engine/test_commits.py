"""An answer may leave when every frame it shows is durable and the log may still answer."""

from __future__ import annotations

import asyncio

import pytest

from fastq.engine.commands import Ack, Lease, Submit
from fastq.errors import CoreFailed, JobNotFound
from tests.engines import CLIENT, OTHER, WORKER, Running, is_pending, running


async def leaving(r: Running) -> asyncio.Task[None]:
    """Wait until an answer made now may leave."""
    task = asyncio.create_task(r.engine.commits.visible(r.engine.commits.shown_seq))
    await asyncio.sleep(0)
    return task


async def test_commands_and_reads_return_at_once_with_the_frame_they_show() -> None:
    async with running() as r:
        job_id = await r.submit(CLIENT, Submit(b'"a"'))
        before = r.engine.commits.shown_seq
        assert r.engine.commits.may_leave(before)
        r.log.hold()
        r.engine.submit(CLIENT, Submit(b'"b"'))
        assert r.engine.commits.shown_seq == before + 1
        (leased,) = await r.engine.lease(WORKER, Lease(had_body=True))
        r.engine.ack(WORKER, Ack(job_id, leased.token))
        assert (await r.engine.job(CLIENT, job_id)).state == "ACKED"
        with pytest.raises(JobNotFound):
            await r.engine.job(OTHER, job_id)
        assert r.engine.commits.may_leave(before)
        assert not r.engine.commits.may_leave(r.engine.commits.shown_seq)
        waiting = await leaving(r)
        assert await is_pending(waiting)
        r.log.release()
        await waiting
        assert r.engine.commits.may_leave(r.engine.commits.shown_seq)


async def test_records_are_committed_without_a_waiter() -> None:
    async with running() as r:
        r.engine.put_document(9, "name", b"body")
        seq = r.engine.commits.shown_seq
        while r.log.tail.durable_seq < seq:  # noqa: ASYNC110 - nobody is told: that is what is tested
            await asyncio.sleep(0)


async def test_answers_stay_while_the_log_may_not_answer() -> None:
    async with running() as r:
        r.log.silence()
        held = [await leaving(r)]
        r.engine.submit(CLIENT, Submit(b"1"))
        held.append(await leaving(r))
        seq = r.engine.commits.shown_seq
        while r.log.tail.durable_seq < seq:  # noqa: ASYNC110 - nobody is told: that is what is tested
            await asyncio.sleep(0)
        assert not r.engine.commits.may_leave(seq)
        await r.engine.durable()  # the process itself may go on
        for task in held:
            assert await is_pending(task)
        r.log.speak()
        await asyncio.gather(*held)
        assert r.engine.commits.may_leave(seq)


async def test_no_answer_leaves_after_a_failure() -> None:
    """Not even an answer that was durable before: after a failure nothing is certain."""
    async with running() as r:
        await r.submit(CLIENT, Submit(b"1"))
        r.engine.commits.fail(CoreFailed("a defect"))
        assert not r.engine.commits.may_leave(r.engine.commits.shown_seq)
        waiting = await leaving(r)
        assert await is_pending(waiting)
        waiting.cancel()


async def test_a_frame_in_flight_at_a_failure_releases_no_answer() -> None:
    async with running() as r:
        r.log.hold()
        r.engine.submit(CLIENT, Submit(b"1"))
        waiting = await leaving(r)
        assert await is_pending(waiting)
        r.engine.commits.fail(CoreFailed("a defect"))
        r.log.release()
        assert await is_pending(waiting)
        waiting.cancel()
