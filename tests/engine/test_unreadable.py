"""A record that the disk cannot read, or that is not as it was written, is refused, and harms nothing else.

Of many leases the others are delivered. The job alone becomes DEAD. Nothing of it is delivered, shown or moved as if it
were right. If nothing can be read, leases are given back.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fastq._core import ALL
from fastq.engine import EngineOptions
from fastq.engine.commands import Ack, Edit, Find, JobOptions, Lease, Principal, Submit
from fastq.errors import LogUnreadable, RecordUnreadable
from fastq.log.files.log import LocalLog
from tests.engines import CLIENT, WORKER, Hand, Running, running
from tests.log.files.bad_disk import BadDisk, rot, span_of
from tests.log.files.jobs import clean_all

SEGMENT_BYTES = 160 << 10
KEPT = EngineOptions(lease_check_ms=10, log_slack_bytes=1 << 40)
CLEANED = EngineOptions(lease_check_ms=10, log_slack_bytes=2 * SEGMENT_BYTES)
ADMIN = Principal("admin_1", "root", "admin", frozenset({"jobs:submit", "jobs:read", "admin"}))
MANY = Lease(had_body=True, limit=100, lease_ms=3_600_000)
ONE = Lease(had_body=True, lease_ms=3_600_000)

Break = Callable[[Running, str], None]


def log_of(directory: Path) -> LocalLog:
    return LocalLog(directory, segment_bytes=SEGMENT_BYTES, align=512, cache_bytes=0)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> BadDisk:
    return BadDisk(monkeypatch)


@pytest.fixture(params=["rot", "bad sector"])
def break_payload(request: pytest.FixtureRequest, disk: BadDisk) -> Break:
    """Make the SUBMIT record of a job unreadable."""

    def break_it(r: Running, job_id: str) -> None:
        place = r.core.job(r.hand.us, ALL, job_id).place
        if request.param == "rot":
            rot(r.log, place)
        else:
            disk.fail_at(span_of(r.log, place))

    return break_it


async def submit(r: Running, count: int) -> list[str]:
    """One batch: the places are within one record."""
    return await r.submit_many(CLIENT, [Submit(b'{"amount":%d}' % n) for n in range(count)])


async def is_dead(r: Running, job_id: str) -> None:
    job = await r.ask.job(CLIENT, job_id)
    assert (job.state, job.attempts, job.outcome) == ("DEAD", 0, "unreadable")
    assert job.error.startswith("the payload cannot be read: ")


# --- leases -----------------------------------------------------------------------------------------------------------


async def test_one_unreadable_payload_of_many_leased_is_dead_and_the_others_are_delivered(
    tmp_path: Path, break_payload: Break, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(log_of(tmp_path), options=KEPT) as r:
        ids = await submit(r, 100)
        break_payload(r, ids[40])
        leased = await r.ask.lease(WORKER, MANY, None, "request-7")
        assert [job.job_id for job in leased] == [job_id for job_id in ids if job_id != ids[40]]
        assert [job.payload for job in leased] == [b'{"amount":%d}' % n for n in range(100) if n != 40]
        assert {job.attempt for job in leased} == {1}
        assert r.core.job(r.hand.us, ALL, ids[40]).state == "DEAD"
        (line,) = [one for one in caplog.records if one.levelno == logging.ERROR]
        assert ids[40] in line.getMessage() and line.request_id == "request-7"  # type: ignore[attr-defined]


async def test_a_worker_that_asks_for_one_job_gets_the_next_one(tmp_path: Path, break_payload: Break) -> None:
    async with running(log_of(tmp_path), options=KEPT) as r:
        ids = await submit(r, 3)
        break_payload(r, ids[0])
        assert (await r.lease_one(ONE)).job_id == ids[1]
        assert r.core.job(r.hand.us, ALL, ids[0]).state == "DEAD"
        assert (await r.lease_one(ONE)).job_id == ids[2]
        assert await r.ask.lease(WORKER, ONE) == []


async def test_the_dead_job_says_why_and_the_attempt_does_not_count(tmp_path: Path) -> None:
    async with running(log_of(tmp_path), options=KEPT) as r:
        (job_id,) = await submit(r, 1)
        place = r.core.job(r.hand.us, ALL, job_id).place
        rot(r.log, place)
        assert await r.ask.lease(WORKER, ONE) == []
        await is_dead(r, job_id)
        assert await r.ask.redrive(CLIENT, job_id) == "READY"
        assert await r.ask.lease(WORKER, MANY) == []
        assert (await r.ask.job(CLIENT, job_id)).state == "DEAD"
        rot(r.log, place)  # the byte is right again
        await r.ask.redrive(CLIENT, job_id)
        assert (await r.lease_one(ONE)).payload == b'{"amount":0}'


async def test_a_request_that_waits_gets_the_next_readable_job(tmp_path: Path, break_payload: Break) -> None:
    async with running(log_of(tmp_path), options=KEPT) as r:
        ids = await submit(r, 2)
        break_payload(r, ids[0])
        (leased,) = await r.ask.lease(WORKER, Lease(had_body=True, wait_ms=60_000))
        assert leased.job_id == ids[1]


async def test_a_repeated_request_gets_the_same_leases_without_the_unreadable_one(
    tmp_path: Path, break_payload: Break
) -> None:
    asked = Lease(had_body=True, limit=10, lease_ms=3_600_000, request_id="once")
    async with running(log_of(tmp_path), options=KEPT) as r:
        ids = await submit(r, 5)
        first = await r.ask.lease(WORKER, asked)
        break_payload(r, ids[2])
        again = await r.ask.lease(WORKER, asked)
        assert again == [job for job in first if job.job_id != ids[2]]
        assert r.core.job(r.hand.us, ALL, ids[2]).state == "DEAD"


async def test_a_read_that_fails_for_a_moment_is_tried_again(tmp_path: Path, disk: BadDisk) -> None:
    async with running(log_of(tmp_path), options=KEPT) as r:
        ids = await submit(r, 10)
        span = span_of(r.log, r.core.job(r.hand.us, ALL, ids[4]).place)

        def fails(begin: int, end: int) -> bool:
            return disk.failed < 3 and begin < span.offset + span.bytes and span.offset < end

        disk.fails = fails
        leased = await r.ask.lease(WORKER, MANY)
        assert disk.failed == 3
        assert [job.job_id for job in leased] == ids


@pytest.mark.parametrize("error", [errno.EIO, errno.EMFILE, errno.ENOMEM])
@pytest.mark.parametrize("command", [MANY, ONE])
async def test_leases_are_given_back_while_nothing_can_be_read(
    tmp_path: Path, disk: BadDisk, error: int, command: Lease
) -> None:
    async with running(log_of(tmp_path), options=KEPT) as r:
        ids = await submit(r, 100)
        disk.error, disk.fails = error, lambda _begin, _end: True
        for _ in range(3):
            with pytest.raises(LogUnreadable):
                await r.ask.lease(WORKER, command)
        assert r.core.counts()["READY"] == 100
        disk.heal()
        leased = await r.ask.lease(WORKER, MANY)
        assert [(job.job_id, job.attempt) for job in leased] == [(job_id, 1) for job_id in ids]


async def test_leases_are_given_back_when_the_answer_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the reading: here a defect."""
    async with running(log_of(tmp_path), options=KEPT) as r:
        await submit(r, 5)

        async def broken(_places: object) -> list[bytes]:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(r.log, "read", broken)
            patch.setattr(r.log, "read_now", lambda _places: None)
            with pytest.raises(ZeroDivisionError):
                await r.ask.lease(WORKER, MANY)
        assert len(await r.ask.lease(WORKER, MANY)) == 5


# --- reads ------------------------------------------------------------------------------------------------------------


async def refused(asked: Awaitable[object]) -> None:
    with pytest.raises(RecordUnreadable):
        await asked


async def test_a_payload_result_or_history_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    async with running(log_of(tmp_path), options=KEPT) as r:
        done, failed, waiting = await submit(r, 3)
        leased = await r.ask.lease(WORKER, Lease(had_body=True, limit=2))
        await r.ask.ack(WORKER, Ack(done, leased[0].token, result=b'{"paid":100}'))
        await r.ask.ack(WORKER, Ack(failed, leased[1].token, error="boom", retry_after_ms=0))
        views = {job_id: r.core.job(r.hand.us, ALL, job_id) for job_id in (done, failed, waiting)}
        rot(r.log, views[done].close_place)
        rot(r.log, views[failed].history_place)
        rot(r.log, views[waiting].place)
        await refused(r.ask.job(CLIENT, done))
        await refused(r.ask.job_at_end(CLIENT, done, 1000, None))
        await refused(r.ask.history(CLIENT, failed))
        await refused(r.ask.job(CLIENT, waiting, with_payload=True))
        await refused(r.ask.edit(CLIENT, waiting, Edit(priority=3)))
        shown = await r.ask.history(CLIENT, waiting)
        assert (shown.events, shown.key_id) == ([], "")
        assert (await r.ask.job(CLIENT, waiting)).state == "READY", "nothing that cannot be read is asked for"


async def test_an_unreadable_job_does_not_break_a_search(tmp_path: Path, break_payload: Break) -> None:
    async with running(log_of(tmp_path), options=KEPT) as r:
        ids = await submit(r, 20)
        break_payload(r, ids[7])
        pages = [page async for page in r.engine.pages(ADMIN, Find(text="amount", limit=100))]
        assert [job.job_id for page in pages for job in page.jobs] == [
            job_id for job_id in reversed(ids) if job_id != ids[7]
        ]
        assert sum(page.unreadable for page in pages) == 1


async def test_an_end_that_cannot_be_read_does_not_break_a_list(tmp_path: Path) -> None:
    """The job is listed without its error. A search by error counts it."""
    async with running(log_of(tmp_path), options=KEPT) as r:
        ids = await submit(r, 3)
        for leased in await r.ask.lease(WORKER, MANY):
            await r.ask.ack(WORKER, Ack(leased.job_id, leased.token, error="boom", outcome="discard"))
        rot(r.log, r.core.job(r.hand.us, ALL, ids[1]).close_place)
        pages = [page async for page in r.engine.pages(ADMIN, Find())]
        assert [job.job_id for page in pages for job in page.jobs] == ids[::-1]
        ends = {job_id: end.error for page in pages for job_id, end in page.ends.items()}
        assert ends == {ids[0]: "boom", ids[2]: "boom"} and sum(page.unreadable for page in pages) == 0
        pages = [page async for page in r.engine.pages(ADMIN, Find(error="boom"))]
        assert [job.job_id for page in pages for job in page.jobs] == [ids[2], ids[0]]
        assert sum(page.unreadable for page in pages) == 1


async def test_a_list_is_shown_while_the_log_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(log_of(tmp_path), options=KEPT) as r:
        ids = await submit(r, 2)
        for leased in await r.ask.lease(WORKER, MANY):
            await r.ask.ack(WORKER, Ack(leased.job_id, leased.token, error="boom", outcome="discard"))

        async def unreadable(_places: object) -> list[bytes]:
            raise LogUnreadable("too many open files")

        monkeypatch.setattr(r.engine.commits, "read", unreadable)
        pages = [page async for page in r.engine.pages(ADMIN, Find())]
        assert [job.job_id for page in pages for job in page.jobs] == ids[::-1]
        with pytest.raises(LogUnreadable):
            _ = [page async for page in r.engine.pages(ADMIN, Find(error="boom"))]


# --- the cleaner ------------------------------------------------------------------------------------------------------


async def one_of_each(r: Running) -> dict[str, str]:
    """Jobs that wait, run, have failed, have a result; each in a frame of its own."""
    ids: dict[str, str] = {}
    for name in ("waits", "runs", "failed", "done", "edited", "sound"):
        options = JobOptions(unique_key=name, tags=("t",), group="g") if name != "edited" else JobOptions()
        ids[name] = await r.submit(CLIENT, Submit(b'{"of":"%s"}' % name.encode(), queue=name, options=options))
    for name in ("runs", "failed", "done"):
        leased = await r.lease_one(Lease(had_body=True, queues=(name,), worker_id="w", request_id=name, lease_ms=10**8))
        if name == "failed":
            await r.ask.ack(WORKER, Ack(leased.job_id, leased.token, error="boom", retry_after_ms=0))
        if name == "done":
            await r.ask.ack(WORKER, Ack(leased.job_id, leased.token, result=b'"result"'))
    await r.ask.edit(CLIENT, ids["edited"], Edit(priority=5))
    return ids


@pytest.mark.parametrize("kind", ["rot", "bad sector"])
async def test_the_cleaner_saves_what_is_left_of_an_unreadable_job_and_everything_else(
    tmp_path: Path, disk: BadDisk, kind: str
) -> None:
    hand = Hand()
    async with running(log_of(tmp_path), hand, KEPT) as r:
        ids = await one_of_each(r)
        before = {name: r.core.job(hand.us, ALL, job_id) for name, job_id in ids.items()}
    async with running(log_of(tmp_path), hand, CLEANED) as r:
        places = [before[name].place for name in ("waits", "runs", "failed", "edited")] + [before["done"].close_place]
        if kind == "rot":
            for place in places:
                rot(r.log, place)
        else:
            disk.fail_at(*(span_of(r.log, place) for place in places))
        await clean_all(r)
        disk.heal()
        await left_of(r, ids)
    async with running(log_of(tmp_path), hand, KEPT) as r:
        r.core.check()
        await left_of(r, ids)
        (leased,) = await r.ask.lease(WORKER, Lease(had_body=True, queues=("sound",)))
        assert leased.payload == b'{"of":"sound"}'
        again = await r.submit(CLIENT, Submit(b"1", queue="waits", options=JobOptions(unique_key="waits")))
        assert again == ids["waits"], "it holds its unique key"
        for name in ("waits", "failed", "edited"):
            assert await r.ask.lease(WORKER, Lease(had_body=True, queues=(name,))) == []
            assert (await r.ask.job(CLIENT, ids[name])).outcome == "unreadable"


async def left_of(r: Running, ids: dict[str, str]) -> None:
    views = {name: r.core.job(r.hand.us, ALL, job_id) for name, job_id in ids.items()}
    states = {name: view.state for name, view in views.items()}
    assert states == {
        "waits": "READY", "runs": "RUNNING", "failed": "RETRY", "done": "ACKED", "edited": "READY", "sound": "READY",
    }  # fmt: skip
    for name, view in views.items():
        assert (view.queue, view.owner_id) == (name, "ann")
        assert name == "edited" or (view.group, view.tags) == ("g", ("t",))
    assert (views["edited"].priority, views["runs"].worker_id) == (5, "w")
    for name in ("waits", "runs", "failed", "edited"):
        await refused(r.ask.job(CLIENT, ids[name], with_payload=True))
    await refused(r.ask.job(CLIENT, ids["done"]))
    assert (await r.ask.job(CLIENT, ids["sound"], with_payload=True)).payload == b'{"of":"sound"}'


async def test_the_cleaner_waits_while_nothing_can_be_read(
    tmp_path: Path, disk: BadDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastq.engine.cleaner.UNREADABLE_RETRY_S", 0.01)
    hand = Hand()
    async with running(log_of(tmp_path), hand, KEPT) as r:
        ids = await one_of_each(r)
    async with running(log_of(tmp_path), hand, CLEANED) as r:
        disk.fails = lambda begin, _end: disk.failed < 60
        await clean_all(r)
        assert disk.failed == 60
        for name in ("waits", "failed", "edited", "sound"):
            assert (await r.ask.job(CLIENT, ids[name], with_payload=True)).payload == b'{"of":"%s"}' % name.encode()
        assert (await r.ask.job(CLIENT, ids["done"])).result == b'"result"'
