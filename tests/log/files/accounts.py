"""The answers that an engine's clients got, checked against the log: by each job's book, and by a state hash."""

from __future__ import annotations

import asyncio
import copy
import json
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from fastq._core import (
    ALL,
    ATTEMPTS_KEPT,
    RECORD_NAMES,
    Core,
    CoreSettings,
    Filter,
    RecordPlace,
    Tail,
    close_result,
    history_of,
    read_event,
    submit_payload,
)
from fastq.chaos.ledger import Lease as LeaseTold
from fastq.chaos.ledger import Ledger
from fastq.engine import assemble
from fastq.engine.commands import Lease, Submit
from fastq.errors import ApiError, JobNotFound
from fastq.log.files._index import FrameIndex
from fastq.log.files.places import SpanReader
from fastq.log.files.recovery import Found, check_oldest, read_log
from tests.engines import CLIENT, START_US, WORKER, Asking, Hand
from tests.log.files.work import OPTIONS, QUEUES, RETENTION_US, jobs_log

T = TypeVar("T")
JOBS_MAX = 100_000  # more than a life leaves


class Accounts:
    """See `tests.log.files.crashes.Told`.

    Every frame is applied to a core without any drop of segments. Recovery must find its state after the last frame
    on the disk.
    """

    def __init__(self) -> None:
        self.ledger = Ledger(RETENTION_US)
        self.acked_seq = 0
        self.records: Counter[str] = Counter()  # types that were met
        self._frames: list[bytes] = []  # records of each, from frame 1 on
        self._hashes: list[int] = []  # of the state after each
        self._whole: Core | None = None  # all frames applied
        self._database_id = b""
        self._now_us = START_US

    def hand_over(self, directory: Path) -> bool:
        return True

    def fork(self) -> Accounts:
        self._whole = None
        return copy.deepcopy(self)

    # --- the trace ----------------------------------------------------------------------------------------------------

    def note(self, data: bytes) -> None:
        if data[:1] == b"T":
            what, fields = json.loads(data[1:])
            if what == "now":
                self._now_us = fields["us"]
            elif what == "leased":
                self.ledger.leased(**fields, lease=LeaseTold(0, 0, closing=True))
            else:
                getattr(self.ledger, what)(**fields)
            return
        kind, seq = struct.unpack_from("<cQ", data)
        if kind == b"A":
            self.acked_seq = max(self.acked_seq, seq)
            return
        assert seq <= len(self._frames) + 1, "frames are numbered in order"
        if seq <= len(self._frames):  # a crash lost those
            self._whole = None
            del self._frames[seq - 1 :], self._hashes[seq - 1 :]
        self._frames.append(data[9:])
        self.records.update(RECORD_NAMES[kind] for kind in types_of(data[9:]))

    def _hash_after(self, seq: int) -> int:
        """The state hash after every frame up to `seq`."""
        if self._whole is None:
            self._whole = fresh_core(self._database_id)
            self._hashes = []
        for number in range(len(self._hashes), len(self._frames)):
            self._whole.replay(self._frames[number], number + 1)
            self._hashes.append(self._whole.state_hash())
        return self._hashes[seq - 1]

    # --- the disk -----------------------------------------------------------------------------------------------------

    def verdict(self, directory: Path) -> str:
        core, found = recovered(directory)
        last_seq = found.next_seq - 1
        if last_seq < self.acked_seq:
            return "lost"
        if last_seq == 0:
            return "right"
        self._database_id = core.database_id
        core.check()
        if core.state_hash() != self._hash_after(last_seq):
            return f"wrong: not the state after frame {last_seq}"
        spans = SpanReader(directory)
        try:
            self._judge_jobs(core, found.index, spans)
            read_everything(core, lambda place: spans.read(found.index.span(place)))
        finally:
            spans.close()
        faults, self.ledger.faults = self.ledger.faults, Counter()
        for fault in faults:
            return "lost" if fault == "lost" else f"wrong: {self.ledger.examples.pop(fault)}"
        return "right"

    def _judge_jobs(self, core: Core, index: FrameIndex, spans: SpanReader) -> None:
        for job_id, book in self.ledger.books.items():
            try:
                view = core.job(self._now_us, ALL, job_id)
            except JobNotFound:
                self.ledger.judge(job_id, 404, {}, self._now_us)
                continue
            payload = json.loads(submit_payload(spans.read(index.span(view.place)), job_id))
            if payload != book.payload:
                self.ledger.fault("wrong", f"{job_id} has another payload")
            seen = {"state": view.state, "attempts": view.attempts}
            if view.close_place is not None and view.outcome != "lease_expired":
                result, _ = close_result(spans.read(index.span(view.close_place)), job_id)
                seen["result"] = None if result is None else json.loads(result)
            self.ledger.judge(job_id, 200, seen, self._now_us)

    def go_on(self, directory: Path) -> None:
        before, _ = recovered(directory)
        expected = before.counts()["jobs"] + 1
        job_id = asyncio.run(_work_off(directory, before))
        after, _ = recovered(directory)
        after.check()
        assert after.job(self._now_us, ALL, job_id).state == "RUNNING"
        assert after.counts()["jobs"] == expected


async def _work_off(directory: Path, before: Core) -> str:
    """Submit one more job and lease all that can be."""
    options = replace(OPTIONS, retention_acked_ms=365 * 86_400_000)
    engine, core = assemble(jobs_log(directory), options, lambda: 0.5)
    engine.open()
    if before.database_id:  # else the crash came before there was one, which keys the hash
        assert core.state_hash() == before.state_hash(), "opening and reading found different states"
    hand = Hand()
    hand.us = core.last_us
    failures: list[BaseException] = []
    await engine.start(hand.clock(), failures.append)
    async with asyncio.timeout(30):
        ask = Asking(engine)
        job_id, _ = await patiently(lambda: ask.submit(CLIENT, Submit(b'"more"', queue=QUEUES[-1])))
        command = Lease(had_body=True, queues=QUEUES, lease_ms=3_600_000)
        while leased := await patiently(lambda: ask.lease(WORKER, command)):
            assert leased[0].payload
        await engine.stop()
    if failures:
        raise failures[0]
    return job_id


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Retry until it is not refused: segments this small are not always ready in time."""
    while True:
        try:
            return await ask()
        except ApiError:
            await asyncio.sleep(0.002)


def recovered(directory: Path) -> tuple[Core, Found]:
    """The state of a log, including frames that a start would rewrite. Changes nothing."""
    core = fresh_core()
    found = read_log(directory, core.replay, core.identify)
    for frame in found.pending:
        core.replay(frame.records, frame.seq)
        found.index.add(frame.seq, frame.segment, frame.offset)
    check_oldest(directory, found, core.oldest_frame)
    return core, found


def read_everything(core: Core, record: Callable[[RecordPlace], bytes]) -> None:
    """The payload, the last result and the history of every job. Raises LogDamaged, OSError, AssertionError."""
    jobs, more = core.page(core.last_us, ALL, Filter(), 0, JOBS_MAX, JOBS_MAX)
    assert not more and len(jobs) == core.counts()["jobs"]
    for job in jobs:
        assert submit_payload(record(job.place), job.job_id)
        if job.close_place is not None:
            close_result(record(job.close_place), job.job_id)
        attempts, place = 0, job.history_place
        while place is not None:
            records, place = history_of(record(place), job.number)
            attempts += sum(read_event(one).what == "attempt" for one in records)
        assert attempts >= min(job.attempts - (job.state == "RUNNING"), ATTEMPTS_KEPT), f"{job.job_id}: {attempts}"


def fresh_core(database_id: bytes = b"") -> Core:
    core = Core(Tail(512, 0, 4096), CoreSettings())
    if database_id:
        core.identify(database_id)
    return core


def types_of(records: bytes) -> list[int]:
    """Of each record of a frame."""
    found, at = [], 0
    while at < len(records):
        found.append(records[at])
        at += int.from_bytes(records[at + 4 : at + 8], "little")
    return found
