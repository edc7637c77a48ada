"""The core and the model side by side: each action is done to both, and what they answer must be the same."""

from __future__ import annotations

from fastq import errors
from fastq._core import FRAME_HEAD_BYTES, Core, JobView, Leased, Tail, close_result, submit_payload
from tests.core.model import Job, Model, Refused

START_US = 1_700_000_000_000_000
SEGMENT_BYTES = 64 * 1024
FORGED_TOKEN = "0000000100000000deadbeef"


class World:
    def __init__(self) -> None:
        self.now_us = START_US
        self.epoch = 0
        self.frames: list[tuple[int, int, bytes]] = []  # durable: segment, offset of the first record, records
        self.model = Model()
        self.durable_model = self.model.copy()
        self.segments = 0
        self.tail: Tail
        self.core: Core
        self.open()

    # --- around the core ------------------------------------------------------------------------------------

    def open(self) -> None:
        """A new core over what is durable, as a start does it."""
        self.tail = Tail(512, 4096, 16 * 1024)
        self.core = Core(self.tail)
        for segment, offset, records in self.frames:
            self.core.replay(records, segment, offset)
        self.tail.resume(len(self.frames) + 1)
        self.offer()
        if not self.frames:
            self.core.genesis(bytes(range(16)), b"k" * 16)
        self.epoch += 1
        self.core.resume(self.now_us, self.epoch)
        self.model.resume(self.now_us)

    def offer(self) -> None:
        while self.tail.segments_offered < 2:
            self.segments += 1
            self.tail.offer_segment(self.segments, 4096, SEGMENT_BYTES)

    def record(self, place: tuple[int, int, int]) -> bytes:
        """From the cache, else from the durable frames; if both have it they agree."""
        segment, offset, n = place
        on_disk = None
        for frame_segment, first, records in self.frames:
            if frame_segment == segment and first <= offset < first + len(records):
                on_disk = records[offset - first : offset - first + n]
        cached = self.tail.cached(place)
        assert cached is not None or on_disk is not None
        assert cached is None or on_disk is None or cached == on_disk
        return cached if cached is not None else on_disk  # type: ignore[return-value]

    def retry_at(self, attempt: int) -> int:
        return self.now_us + attempt * 1_000_000

    # --- actions -----------------------------------------------------------------------------------------------------

    def time_passes(self, step_us: int) -> None:
        self.now_us += step_us
        self.core.advance(self.now_us, 1_000_000)

    def submit(self, payload: bytes, priority: int, max_retries: int, delay_us: int, queue: str) -> None:
        job_id = self.core.submit(
            self.now_us,
            payload,
            owner_id="o1",
            key_id="k1",
            max_retries=max_retries,
            priority=priority,
            run_at_us=self.now_us + delay_us,
            queue=queue,
        )
        run_at_us = self.now_us + max(0, delay_us)
        order = self.model.submitted
        self.model.submit(Job(job_id, order, payload, "o1", queue, priority, max_retries, self.now_us, run_at_us))

    def lease(self, lease_ms: int, legacy: bool, queue: str) -> None:
        leased = self.core.lease(
            self.now_us,
            lease_ms=lease_ms,
            key_id="k2",
            worker_id="w" * lease_ms.bit_length(),
            legacy=legacy,
            queue=queue,
        )
        expected = self.model.next_ready(self.now_us, queue)
        if expected is None:
            assert leased is None
            return
        assert isinstance(leased, Leased)
        assert leased.job_id == expected.job_id
        self.model.lease(expected, self.now_us, lease_ms, legacy, leased.token)
        assert (leased.attempt, leased.lease_until_us) == (expected.attempts, expected.lease_until_us)
        assert (leased.priority, leased.max_retries) == (expected.priority, expected.max_retries)
        assert (leased.queue, leased.created_us) == (expected.queue, expected.created_us)
        assert submit_payload(self.record(leased.place), leased.job_id) == expected.payload

    def ack(self, job_id: str, token: str | None, error: str, result: bytes | None) -> None:
        before = self.tail.appended_seq, self.tail.unsynced_bytes
        try:
            changed: bool | str = self.core.ack(
                self.now_us, job_id, token, key_id="k2", result=result, error=error, retry_at=self.retry_at
            )
        except errors.ApiError as refusal:
            changed = type(refusal).__name__
        try:
            attempts = self.model.jobs[job_id].attempts if job_id in self.model.jobs else 0
            expected: bool | str = self.model.ack(self.now_us, job_id, token, result, error, self.retry_at(attempts))
        except Refused as refusal:
            expected = refusal.why
        assert changed == expected
        if changed is not True:
            assert before == (self.tail.appended_seq, self.tail.unsynced_bytes), "a refused ack left a trace"

    def stranger(self, job_id: str) -> None:
        """An id that is none of ours."""
        try:
            self.core.job(self.now_us, job_id)
            raise AssertionError(f"{job_id!r} is taken for a job")
        except errors.JobNotFound:
            pass
        self.ack(job_id, None, "", None)

    def expire(self) -> None:
        assert self.core.expire(self.now_us, self.retry_at, 1_000_000) == self.model.expire(self.now_us, self.retry_at)

    def put_document(self, name: str, body: bytes) -> None:
        self.core.put_document(self.now_us, 1, name, body, "k3")
        self.model.documents[1, name] = body

    def drop_document(self, name: str) -> None:
        self.core.drop_document(self.now_us, 1, name)
        self.model.documents.pop((1, name), None)

    def sync(self) -> None:
        while (batch := self.tail.take()) is not None:
            frame = bytes(batch)
            assert (
                len(frame) == batch.frame_bytes and batch.frame_bytes % 512 == 0 and batch.seq == len(self.frames) + 1
            )
            assert batch.offset + batch.frame_bytes <= SEGMENT_BYTES - 512
            assert not any(frame[FRAME_HEAD_BYTES + batch.record_bytes :]), "padding is not zero"
            records = frame[FRAME_HEAD_BYTES : FRAME_HEAD_BYTES + batch.record_bytes]
            self.frames.append((batch.segment, batch.offset + FRAME_HEAD_BYTES, records))
            self.tail.durable(batch.seq)
        assert self.tail.unsynced_bytes == 0 and self.tail.durable_seq == self.tail.appended_seq
        self.durable_model = self.model.copy()

    def crash(self) -> None:
        """What was not synced is gone; what was is there."""
        self.model = self.durable_model.copy()
        self.open()

    def restart(self) -> None:
        self.sync()
        before = self.core.state_hash()
        replayed = Core(Tail(512, 0, 4096))
        for segment, offset, records in self.frames:
            replayed.replay(records, segment, offset)
        assert replayed.state_hash() == before, "a replay does not give what live work gave"
        replayed.check()
        self.open()

    # --- what always holds ------------------------------------------------------------------------------------------

    def agree(self) -> None:
        self.offer()
        self.core.check()
        for job in self.model.jobs.values():
            view = self.core.job(self.now_us, job.job_id)
            assert isinstance(view, JobView)
            assert (view.state, view.attempts, view.max_retries) == (
                job.shown_state(self.now_us),
                job.attempts,
                job.max_retries,
            )
            assert (view.lease_until_us, view.run_at_us, view.owner_id) == (
                job.lease_until_us,
                job.run_at_us,
                job.owner_id,
            )
            assert view.expired == job.expired
            if view.close_place is not None and not view.expired:
                assert close_result(self.record(view.close_place), job.job_id) == (job.result, job.error)
        assert self.core.counts()["jobs"] == len(self.model.jobs)
        assert self.core.documents(1) == {name: body for (_, name), body in self.model.documents.items()}

    def due(self) -> None:
        """The timer is never told a later time than the model knows of."""
        self.core.advance(self.now_us, 1_000_000)
        expected = self.model.next_due_us(self.now_us)
        assert self.core.next_due_us() == (1 << 62 if expected is None else expected)
