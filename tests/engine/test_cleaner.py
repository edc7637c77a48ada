"""Retention and the cleaner: live records stay, the others go, and the log keeps within its bound."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from fastq.engine import EngineOptions
from fastq.engine.commands import Ack, Edit, Lease, Submit
from fastq.errors import ApiError, JobNotFound, LogDamaged
from fastq.log.files.log import LocalLog
from fastq.log.files.segments import segment_path
from fastq.log.memory import MemoryLog
from tests.engines import CLIENT, WORKER, Hand, Running, running, until
from tests.log.files.jobs import has_room

SEGMENT_BYTES = 64 << 10
SLACK_BYTES = 4 * SEGMENT_BYTES
SMALL = EngineOptions(lease_check_ms=10, retention_acked_ms=1000, retention_dead_ms=1000, log_slack_bytes=SLACK_BYTES)


def small_log() -> MemoryLog:
    return MemoryLog(segment_bytes=SEGMENT_BYTES, cache_bytes=16 << 10)


async def churn(r: Running, rng: random.Random, jobs: int, left: dict[str, tuple[str, bytes]]) -> None:
    """Submit, lease and end jobs at random. `left`: unfinished jobs by id, with state and payload."""
    for _ in range(jobs):
        await until(lambda: has_room(r))
        payload = b'"' + bytes(rng.choices(b"abc", k=rng.randrange(10, 3000))) + b'"'
        await until(lambda: has_room(r))
        job_id = await r.submit(CLIENT, Submit(payload, max_retries=1, queue=rng.choice(["a", "b"])))
        left[job_id] = ("READY", payload)
        if rng.random() < 0.9:
            (leased,) = await r.ask.lease(WORKER, Lease(had_body=True, queues=("a", "b"), lease_ms=3_600_000))
            left[leased.job_id] = ("RUNNING", left[leased.job_id][1])
            if rng.random() < 0.9:
                error = rng.choice(["", "", "boom"])
                await r.ask.ack(WORKER, Ack(leased.job_id, leased.token, result=b'"r"', error=error))
                del left[leased.job_id]
        r.hand.us += rng.randrange(20_000)


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("segment-*"))


async def all_there(r: Running, left: dict[str, tuple[str, bytes]]) -> None:
    for job_id, (state, _) in left.items():
        assert (await r.ask.job(CLIENT, job_id)).state == state


async def test_the_log_stays_within_its_bound_and_nothing_is_lost() -> None:
    rng = random.Random(1)
    log, hand = small_log(), Hand()
    left: dict[str, tuple[str, bytes]] = {}
    for _ in range(3):
        async with running(log, hand, SMALL) as r:
            await churn(r, rng, 700, left)

            async def is_clean(r: Running = r) -> bool:
                await r.submit(CLIENT, Submit(b"1", queue="ticks"))  # a commit wakes the cleaner
                return r.log.used_bytes <= r.engine.cleaner.bound_bytes

            await until(is_clean)
            assert r.engine.cleaner.freed_parts > 10
            assert r.engine.cleaner.moved_bytes > 10_000
            await all_there(r, left)
            before = r.core.state_hash()
            log = r.log.crash()
        replayed = running(log.crash(), hand, SMALL)
        replayed.engine.open()
        replayed.core.check()
        assert replayed.core.state_hash() == before
        log = log.crash()
    async with running(log, hand, SMALL) as r:
        await all_there(r, left)
        waiting = {job_id: payload for job_id, (state, payload) in left.items() if state == "READY"}
        for _ in range(len(waiting)):
            (leased,) = await r.ask.lease(WORKER, Lease(had_body=True, queues=("a", "b")))
            assert leased.payload == waiting.pop(leased.job_id)
        assert not waiting


@pytest.mark.slow
async def test_cleaning_deletes_segment_files_and_the_log_opens_again(tmp_path: Path) -> None:
    """On disk: kill the log between rounds; the directory keeps within its bound."""
    rng, hand = random.Random(2), Hand()
    left: dict[str, tuple[str, bytes]] = {}
    for _ in range(4):
        log = LocalLog(tmp_path, segment_bytes=SEGMENT_BYTES, align=512, cache_bytes=16 << 10)
        async with running(log, hand, SMALL) as r:
            await all_there(r, left)
            await churn(r, rng, 500, left)

            async def is_clean(r: Running = r, log: LocalLog = log) -> bool:
                await r.submit(CLIENT, Submit(b"1", queue="ticks"))
                return log.used_bytes <= r.engine.cleaner.bound_bytes

            await until(is_clean)
            assert r.engine.cleaner.freed_parts > 5
            await all_there(r, left)
        on_disk = sum(path.stat().st_size for path in segments(tmp_path))
        assert on_disk <= r.engine.cleaner.bound_bytes + 4 * SEGMENT_BYTES
    assert not (tmp_path / "segment-00000001").exists()
    log = LocalLog(tmp_path, segment_bytes=SEGMENT_BYTES, align=512)
    async with running(log, hand, SMALL) as r:
        waiting = {job_id: payload for job_id, (state, payload) in left.items() if state == "READY"}
        for _ in range(len(waiting)):
            (leased,) = await r.ask.lease(WORKER, Lease(had_body=True, queues=("a", "b")))
            assert leased.payload == waiting.pop(leased.job_id)


async def test_a_missing_first_segment_is_refused_after_cleaning(tmp_path: Path) -> None:
    hand = Hand()
    async with running(LocalLog(tmp_path, segment_bytes=SEGMENT_BYTES, align=512), hand, SMALL) as r:
        await churn(r, random.Random(3), 500, {})
        assert r.core.oldest_frame > 1
        first = segment_path(tmp_path, r.log._index.segment_of(r.core.oldest_frame))
    for path in segments(tmp_path):
        if path <= first:  # a stop may break off the deletion of those before it
            path.unlink()
    with pytest.raises(LogDamaged, match="are missing"):
        running(LocalLog(tmp_path, segment_bytes=SEGMENT_BYTES, align=512), hand, SMALL).engine.open()


async def test_retention_removes_finished_jobs_by_age_and_by_count() -> None:
    hand = Hand()
    options = EngineOptions(lease_check_ms=10, retention_acked_ms=1000, retention_dead_ms=60_000, finished_jobs_max=5)
    async with running(hand=hand, options=options) as r:
        ids = []
        for i in range(10):
            ids.append(await r.submit(CLIENT, Submit(b"1", max_retries=1)))
            leased = await r.lease_one(Lease(had_body=True))
            await r.ask.ack(WORKER, Ack(leased.job_id, leased.token, error="boom" if i >= 8 else ""))
            hand.us += 1000

        async def states() -> list[str]:
            found = []
            for job_id in ids:
                try:
                    found.append((await r.ask.job(CLIENT, job_id)).state)
                except JobNotFound:
                    found.append("")
            return found

        async def five_are_left() -> bool:
            return await states() == [""] * 3 + ["ACKED"] * 5 + ["DEAD"] * 2

        await until(five_are_left)
        hand.us += 2_000_000

        async def only_dead_ones_are_left() -> bool:
            return await states() == [""] * 8 + ["DEAD"] * 2

        await until(only_dead_ones_are_left)


async def test_cleaning_moves_documents_without_their_old_versions() -> None:
    log, hand = small_log(), Hand()
    async with running(log, hand, SMALL) as r:
        for i in range(1000):
            await r.ask.put_document(1, f"name{i % 7}", b"%d" % i + b"x" * 1000)
        await r.ask.put_document(1, "stays", b"as it is")
        for i in range(1000):
            await r.ask.put_document(2, "other", b"%d" % i + b"x" * 1000)
        assert r.engine.cleaner.freed_parts > 5
        log = r.log.crash()
    async with running(log, hand, SMALL) as r:
        found = r.engine.documents(1)
        assert found["stays"] == b"as it is"
        assert sorted(body[:3] for name, body in found.items() if name != "stays") == sorted(
            b"%d" % i for i in range(993, 1000)
        )


async def test_a_start_finishes_a_trim_that_a_crash_interrupted() -> None:
    hand = Hand()

    class Stuck(MemoryLog):
        def drop_before(self, frame: int) -> None:
            raise OSError(5, "as if the process died here")

    log = Stuck(segment_bytes=SEGMENT_BYTES, cache_bytes=16 << 10)
    async with running(log, hand, SMALL) as r:

        async def work() -> None:
            while True:
                await r.submit(CLIENT, Submit(b'"' + b"x" * 3000 + b'"'))
                leased = await r.lease_one(Lease(had_body=True))
                await r.ask.ack(WORKER, Ack(leased.job_id, leased.token))
                hand.us += 100_000

        async def has_failed() -> bool:
            return bool(r.failures)

        working = asyncio.create_task(work())  # it hangs once the log has failed: no answer leaves then
        await until(has_failed)
        working.cancel()
    after = log.crash()
    assert after.oldest_frame == 1
    async with running(after, hand, SMALL) as r:
        assert after.oldest_frame >= r.core.oldest_frame > 1


async def test_cleaning_moves_edited_jobs_with_their_edits() -> None:
    """Jobs are edited in the segment of their submit, and in a later one."""
    async with running(small_log(), Hand(), SMALL) as r:
        edited: dict[str, bytes] = {}
        for n in range(40):
            job_id = await r.submit(CLIENT, Submit(b'"before"', delay_ms=3_600_000, queue="kept"))
            edited[job_id] = b'"after %d"' % n
            if n % 2:
                await r.ask.edit(CLIENT, job_id, Edit(payload=edited[job_id]))
        for n, (job_id, payload) in enumerate(edited.items()):
            if n % 2 == 0:
                await r.ask.edit(CLIENT, job_id, Edit(payload=payload))
        await churn(r, random.Random(3), 400, {})
        assert r.engine.cleaner.freed_parts > 4
        assert not r.failures
        for job_id, payload in edited.items():
            assert (await r.ask.job(CLIENT, job_id, with_payload=True)).payload == payload
        log = r.log.crash()
    async with running(log, Hand(), SMALL) as r:
        for job_id, payload in edited.items():
            assert (await r.ask.job(CLIENT, job_id, with_payload=True)).payload == payload


async def test_cleaning_moves_jobs_of_small_frames_together(tmp_path: Path) -> None:
    """A frame takes at least the alignment. Moved one a frame, the jobs would free nothing."""
    log = LocalLog(tmp_path, segment_bytes=SEGMENT_BYTES, align=4096, cache_bytes=0)
    options = EngineOptions(lease_check_ms=10, log_slack_bytes=4 * SEGMENT_BYTES)
    async with running(log, options=options) as r:
        while log.used_bytes <= r.engine.cleaner.bound_bytes:
            try:
                await r.submit(CLIENT, Submit(b"1"))
            except ApiError:
                await asyncio.sleep(0.001)  # the next segment is not ready yet

        async def is_clean() -> bool:
            r.engine.cleaner.wake_if_due()
            return bool(log.used_bytes <= r.engine.cleaner.bound_bytes)

        await until(is_clean)
