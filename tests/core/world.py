"""The core and the model side by side: each action is done to both, and what they answer must be the same."""

from __future__ import annotations

from fastq import errors
from fastq._core import FRAME_HEAD_BYTES, Core, JobView, Leased, LiveDocument, Tail, close_result, submit_payload
from tests.core.model import Job, Model, Refused

START_US = 1_700_000_000_000_000
SEGMENT_BYTES = 32 * 1024
FORGED_TOKEN = "0000000100000000deadbeef"


class World:
    def __init__(self) -> None:
        self.now_us = START_US
        self.epoch = 0
        self.frames: list[tuple[int, int, bytes]] = []  # durable: segment, offset of the first record, records
        self.model = Model()
        self.durable_model = self.model.copy()
        self.seq = 0  # of the last durable frame
        self.segments = 0
        self.tail: Tail
        self.core: Core
        self.open()

    # --- around the core ------------------------------------------------------------------------------------

    def open(self) -> None:
        """A new core over what is durable, as a start does it."""
        self.tail = Tail(512, 4096, 16 * 1024)
        self.core = Core(self.tail)
        self.core.identify(bytes(range(16)))
        for segment, offset, records in self.frames:
            self.core.replay(records, segment, offset)
        self.tail.resume(self.seq + 1)
        self.offer()
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

    def submit_many(self, payloads: list[bytes], priority: int, max_retries: int, queue: str) -> None:
        jobs = [(payload, max_retries, priority, 0, queue) for payload in payloads]
        before = self.tail.appended_seq, self.tail.unsynced_bytes
        ids = self.core.submit_many(self.now_us, jobs, owner_id="o1", key_id="k1")
        assert len(ids) == len(payloads)
        assert payloads or before == (self.tail.appended_seq, self.tail.unsynced_bytes), "an empty group left a trace"
        for job_id, payload in zip(ids, payloads, strict=True):
            job = Job(
                job_id, self.model.submitted, payload, "o1", queue, priority, max_retries, self.now_us, self.now_us
            )
            self.model.submit(job)

    def lease(self, lease_ms: int, legacy: bool, queues: list[str], limit: int = 1, request_id: str = "") -> None:
        held = self.core.leased_before(self.now_us, "k2", request_id)
        expected_held = self.model.leased_before(self.now_us, request_id) if request_id else []
        assert sorted(lease.token for lease in held) == sorted(expected_held)
        if held:
            return
        granted = self.core.lease(
            self.now_us,
            queues,
            limit,
            lease_ms=lease_ms,
            key_id="k2",
            worker_id="w" * lease_ms.bit_length(),
            legacy=legacy,
            request_id=request_id,
        )
        for leased in granted:
            expected = self.model.next_of(self.now_us, queues)
            assert isinstance(leased, Leased)
            assert expected is not None and leased.job_id == expected.job_id
            self.model.lease(expected, self.now_us, lease_ms, legacy, leased.token, request_id)
            assert (leased.attempt, leased.lease_until_us) == (expected.attempts, expected.lease_until_us)
            assert (leased.priority, leased.max_retries) == (expected.priority, expected.max_retries)
            assert (leased.queue, leased.created_us) == (expected.queue, expected.created_us)
            assert submit_payload(self.record(leased.place), leased.job_id) == expected.payload
        assert len(granted) == limit or self.model.next_of(self.now_us, queues) is None

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

    def ack_many(self, acks: list[tuple[str, str | None, bytes | None, str]]) -> None:
        items = [(job_id, token, result, error, self.retry_at) for job_id, token, result, error in acks]
        refusals = self.core.ack_many(self.now_us, items, key_id="k2")
        for (job_id, token, result, error), refusal in zip(acks, refusals, strict=True):
            attempts = self.model.jobs[job_id].attempts if job_id in self.model.jobs else 0
            try:
                self.model.ack(self.now_us, job_id, token, result, error, self.retry_at(attempts))
                expected = "NoneType"
            except Refused as refused:
                expected = refused.why
            assert type(refusal).__name__ == expected

    def extend(self, job_id: str, token: str, lease_ms: int) -> None:
        try:
            until: int | str = self.core.extend(self.now_us, job_id, token, lease_ms)
        except errors.ApiError as refusal:
            until = type(refusal).__name__
        try:
            expected: int | str = self.model.extend(self.now_us, job_id, token, lease_ms)
        except Refused as refusal:
            expected = refusal.why
        assert until == expected

    def undelivered(self, job_id: str, token: str) -> None:
        if job_id in self.model.jobs:
            assert self.core.undelivered(self.now_us, job_id, token) == self.model.undelivered(job_id, token)

    def forget(self, state: str, age_us: int, count_max: int) -> None:
        before_us = self.now_us - age_us
        n = self.core.forget(self.now_us, state, before_us, count_max, 1 << 40, 1_000_000)
        gone = {job_id for job_id in self.model.jobs if not self.exists(job_id)}
        assert len(gone) == n
        self.model.forget(state, before_us, count_max, gone)

    def exists(self, job_id: str) -> bool:
        try:
            return self.core.job(self.now_us, job_id).job_id == job_id
        except errors.JobNotFound:
            return False

    def clean(self, stop_after: str) -> None:
        """Move what is live out of the oldest segment, say that it is not needed, throw it away; or part of that."""
        self.sync()
        oldest = self.core.oldest_segment
        if not self.frames or self.frames[-1][0] <= oldest:
            return
        for segment, offset, records in [frame for frame in self.frames if frame[0] == oldest]:
            for live in self.core.live_records(records, segment, offset):
                self.offer()
                if isinstance(live, LiveDocument):
                    assert self.core.move_document(self.now_us, live)
                    assert not self.core.move_document(self.now_us, live), "moved twice"
                    continue
                needed = [place and self.record(place) for place in (live.place, live.close_place, live.lease_place)]
                assert needed[0] is not None
                assert self.core.move_job(live, needed[0], needed[1], needed[2])
                assert not self.core.move_job(live, needed[0], needed[1], needed[2]), "moved twice"
        for segment, offset, records in [frame for frame in self.frames if frame[0] == oldest]:
            assert self.core.live_records(records, segment, offset) == []
        if stop_after == "move":
            return
        self.offer()
        self.core.trim(self.now_us, oldest + 1)
        self.sync()
        if stop_after == "trim":
            return
        self.frames = [frame for frame in self.frames if frame[0] > oldest]

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
            assert len(frame) == batch.frame_bytes and batch.frame_bytes % 512 == 0 and batch.seq == self.seq + 1
            assert batch.offset + batch.frame_bytes <= SEGMENT_BYTES - 512
            assert not any(frame[FRAME_HEAD_BYTES + batch.record_bytes :]), "padding is not zero"
            records = frame[FRAME_HEAD_BYTES : FRAME_HEAD_BYTES + batch.record_bytes]
            self.frames.append((batch.segment, batch.offset + FRAME_HEAD_BYTES, records))
            self.seq = batch.seq
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
        replayed.identify(bytes(range(16)))
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
