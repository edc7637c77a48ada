"""The conformance suite of logs: the tests of each implementation run it.

A test class inherits `LogSuite` and sets `home`; pytest, or whatever runs coroutines, calls the methods `test_…`.
Documents stand for jobs: the suite needs a core to make records, and no engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from hashlib import shake_128
from typing import TYPE_CHECKING, Protocol

from fastq._core import Core, CoreSettings, RecordPlace
from fastq.errors import LogFailed
from fastq.log.protocol import Log, Opened

if TYPE_CHECKING:
    from fastq._core import Batch

KIND = 9  # of the suite's documents
BODY_BYTES = 3_000


class Home(Protocol):
    """One kind of log, for the suite. Its parts take 64 KiB, and its tail caches nothing."""

    def new(self) -> Log:
        """Make an empty log."""

    def again(self, log: Log) -> Log:
        """Open the closed log again, as the next process does."""

    async def killed(self, log: Log) -> Log:
        """Open the log again, as after a kill of this process. No batch is in flight."""

    def break_commits(self, log: Log) -> None:
        """Make the next commit fail, as on a lost device."""

    def break_reads(self, log: Log) -> None:
        """Make reads fail, as on a device with a bad sector."""


class Writer:
    """Connects a log and a core, as the engine does: appends documents, and knows which are durable."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.core = Core(log.tail, CoreSettings())
        self.opened: Opened
        self.failure: BaseException | None = None
        self.places: list[tuple[RecordPlace, bytes]] = []  # of each frame's records that replay met
        self._turn = asyncio.Event()

    def open(self) -> Writer:
        self.opened = self.log.open(self)
        return self

    def identify(self, database_id: bytes) -> None:
        self.core.identify(database_id)

    @property
    def oldest_frame(self) -> int:
        return self.core.oldest_frame

    def replay(self, records: memoryview, frame: int) -> int:
        self.places.append((RecordPlace(frame, 0, len(records)), bytes(records)))
        return self.core.replay(records, frame)

    async def start(self) -> Writer:
        """Start as the engine does, with a RESUME record."""
        self.log.start(self._durable, self._failed)
        self.core.resume(1, self.opened.epoch)
        await self.settled()
        return self

    def append(self, name: str, body: bytes) -> int:
        """Append a document. Returns its batch's sequence number."""
        self.core.put_document(2, KIND, name, body)
        return self.log.tail.appended_seq

    async def room(self, record_bytes: int) -> None:
        """Wait until `record_bytes` can be appended."""
        while not self.log.tail.has_room(record_bytes + 256, 0):
            if self.failure is not None:
                raise self.failure
            await asyncio.sleep(0)

    async def write(self, name: str, body: bytes) -> int:
        """Append a document and wait until it is durable. Returns its sequence number."""
        await self.room(len(body))
        seq = self.append(name, body)
        await self.settled()
        return seq

    async def settled(self) -> None:
        tail = self.log.tail
        self.kick()
        while tail.durable_seq < tail.appended_seq:
            if self.failure is not None:
                raise self.failure
            self._turn.clear()
            await self._turn.wait()

    def kick(self) -> None:
        if self.log.idle and (batch := self.log.tail.take()) is not None:
            self._commit(batch)

    def _commit(self, batch: Batch) -> None:
        self.log.commit(batch)

    def documents(self) -> dict[str, bytes]:
        return self.core.documents(KIND)

    def _durable(self, seq: int) -> None:
        self.log.tail.durable(seq)
        self.kick()
        self._turn.set()

    def _failed(self, error: BaseException) -> None:
        assert self.failure is None, "a log fails once"
        self.failure = error
        self._turn.set()


def bodies_of(sizes: list[int]) -> list[bytes]:
    """Bodies of the given sizes, all different."""
    return [shake_128(b"%d" % number).digest(size) for number, size in enumerate(sizes)]


async def fails_with(kind: type[BaseException], work: Awaitable[object]) -> BaseException:
    """Await `work`, which must raise an error of this kind. Returns the error."""
    try:
        await work
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was to be raised")


async def written(log: Log, documents: int) -> Writer:
    """Write documents to a log, each in a frame of its own."""
    writer = await Writer(log).open().start()
    for number, body in enumerate(bodies_of([BODY_BYTES] * documents)):
        await writer.write(str(number), body)
    return writer


class LogSuite:
    """See above. `home` may be a property or, in pytest, set by a fixture."""

    home: Home

    # --- opening ------------------------------------------------------------------------------------------------------

    async def test_a_new_log_is_empty_and_has_an_identity(self) -> None:
        writer = Writer(self.home.new()).open()
        assert (writer.opened.epoch, writer.opened.frames, writer.opened.records) == (1, 0, 0)
        assert len(writer.opened.database_id) == 16
        assert (writer.log.oldest_frame, writer.log.parts) == (1, 0)
        await writer.log.close()

    async def test_durable_frames_are_replayed_in_order(self) -> None:
        writer = await Writer(self.home.new()).open().start()
        bodies = bodies_of([0, 1, 100, 511, 512, 4096, 20_000])
        for number, body in enumerate(bodies):
            await writer.write(str(number), body)
        await writer.log.close()
        again = Writer(self.home.again(writer.log)).open()
        assert list(again.documents().items()) == [(str(n), body) for n, body in enumerate(bodies)]
        assert again.core.state_hash() == writer.core.state_hash()
        assert again.opened.database_id == writer.opened.database_id
        assert again.opened.frames == again.opened.records == len(bodies) + 1
        await again.log.close()

    async def test_the_epoch_rises_after_every_opening_that_wrote(self) -> None:
        log, epochs = self.home.new(), []
        for _ in range(4):
            writer = await Writer(log).open().start()
            epochs.append(writer.opened.epoch)
            await log.close()
            log = self.home.again(log)
        assert epochs == [1, 2, 3, 4]

    async def test_sequence_numbers_go_on_after_a_restart(self) -> None:
        writer = await Writer(self.home.new()).open().start()
        last = await writer.write("a", b"1")
        await writer.log.close()
        again = await Writer(self.home.again(writer.log)).open().start()
        assert await again.write("b", b"2") == last + 2, "one frame said that the server is back"
        await again.log.close()

    async def test_an_opening_without_work_changes_nothing(self) -> None:
        log = self.home.new()
        writer = await Writer(log).open().start()
        await writer.write("a", b"1")
        await log.close()
        for _ in range(5):
            log = self.home.again(log)
            idle = Writer(log).open()
            assert idle.documents() == {"a": b"1"}
            await log.close()

    async def test_a_log_that_was_opened_and_not_started_can_be_closed(self) -> None:
        log = self.home.new()
        Writer(log).open()
        await log.close()

    # --- commits ------------------------------------------------------------------------------------------------------

    async def test_records_appended_during_a_commit_share_the_next_batch(self) -> None:
        writer = await Writer(self.home.new()).open().start()
        first = writer.append("first", b"x")
        writer.kick()
        assert not writer.log.idle
        others = {writer.append(f"{n}", b"y") for n in range(50)}
        assert others == {first + 1}
        await writer.settled()
        assert writer.log.tail.durable_seq == first + 1
        await writer.log.close()
        again = Writer(self.home.again(writer.log)).open()
        assert len(again.documents()) == 51
        await again.log.close()

    async def test_a_second_batch_during_a_commit_is_refused(self) -> None:
        writer = await Writer(self.home.new()).open().start()
        writer.append("a", b"1")
        writer.kick()
        writer.append("b", b"2")
        self._refuses_a_batch(writer)
        await asyncio.sleep(0)
        await writer.log.close()

    async def test_a_closed_log_refuses_batches(self) -> None:
        writer = await Writer(self.home.new()).open().start()
        await writer.log.close()
        assert not writer.log.idle
        writer.append("late", b"x")
        self._refuses_a_batch(writer)
        await writer.log.close()  # a second close does nothing

    def _refuses_a_batch(self, writer: Writer) -> None:
        batch = writer.log.tail.take()
        assert batch is not None
        refusal = ""
        try:
            writer.log.commit(batch)
        except AssertionError as error:
            refusal = str(error)
        assert "one batch at a time, between start and close" in refusal

    async def test_records_that_were_not_committed_are_lost(self) -> None:
        writer = await Writer(self.home.new()).open().start()
        await writer.write("kept", b"1")
        writer.append("lost", b"2")
        await writer.log.close()
        again = Writer(self.home.again(writer.log)).open()
        assert again.documents() == {"kept": b"1"}
        await again.log.close()

    async def test_the_leader_may_answer(self) -> None:
        writer = await Writer(self.home.new()).open().start()
        assert writer.log.may_answer()
        await writer.log.close()

    async def test_close_waits_for_the_batch_in_flight(self) -> None:
        writer = await Writer(self.home.new()).open().start()
        seq = writer.append("last", b"words")
        writer.kick()
        await writer.log.close()
        assert writer.log.tail.durable_seq == seq
        again = Writer(self.home.again(writer.log)).open()
        assert again.documents() == {"last": b"words"}
        await again.log.close()

    async def test_a_failed_commit_is_reported_once_and_the_log_refuses_batches(self) -> None:
        writer = await Writer(self.home.new()).open().start()
        seq = await writer.write("durable", b"1")
        self.home.break_commits(writer.log)
        writer.append("failed", b"2")
        await fails_with(LogFailed, writer.settled())
        assert writer.failure is not None
        assert not writer.log.idle
        assert writer.log.tail.durable_seq == seq, "a failed batch is not reported durable"
        writer.append("late", b"3")
        writer.kick()
        await asyncio.sleep(0)
        again = await Writer(await self.home.killed(writer.log)).open().start()
        found = again.documents()
        assert found.pop("durable", None) == b"1"
        assert found in ({}, {"failed": b"2"}), "a batch whose outcome is unknown is there whole, or not at all"
        await again.write("new", b"4")
        await again.log.close()

    async def test_kills_lose_no_durable_frame(self) -> None:
        log, expected = self.home.new(), dict[str, bytes]()
        for life in range(5):
            writer = await Writer(log).open().start()
            assert writer.documents() == expected
            for number, body in enumerate(bodies_of([BODY_BYTES] * 7)):
                await writer.write(f"{life}-{number}", body)
                expected[f"{life}-{number}"] = body
            log = await self.home.killed(log)
        again = Writer(log).open()
        assert again.documents() == expected
        await log.close()

    # --- reads --------------------------------------------------------------------------------------------------------

    async def test_places_stay_true_over_restarts_and_kills(self) -> None:
        writer = await written(self.home.new(), 30)
        log = await self.home.killed(writer.log)
        seen: dict[int, tuple[RecordPlace, bytes]] = {}
        for life in range(4):
            again = await Writer(log).open().start()
            seen |= {place.frame: (place, records) for place, records in again.places}
            for place, records in seen.values():
                assert await log.read([place]) == [records], f"{place} does not hold"
            await again.write(f"life {life}", b"x" * BODY_BYTES)
            if life % 2:
                await log.close()
                log = self.home.again(log)
            else:
                log = await self.home.killed(log)
        assert len(seen) == 30 + 1 + 6

    async def test_many_places_are_returned_in_the_order_of_the_request(self) -> None:
        writer = await written(self.home.new(), 60)
        await writer.log.close()
        again = await Writer(self.home.again(writer.log)).open().start()
        asked = [*again.places[::-1], *again.places[::7]]
        assert await again.log.read([place for place, _ in asked]) == [records for _, records in asked]
        last, records = again.places[-1]
        within = RecordPlace(last.frame, 3, last.bytes - 5)
        assert await again.log.read([within, last]) == [records[3:-2], records]
        for place, records in again.places:
            assert again.log.read_now([place]) in ([records], None)
        await again.log.close()

    async def test_reading_an_unwritten_frame_is_an_error(self) -> None:
        writer = await written(self.home.new(), 3)
        for frame in (writer.log.tail.durable_seq + 50, 0):
            await fails_with(FileNotFoundError, self._read(writer.log, RecordPlace(frame, 0, 10)))
        await writer.log.close()

    async def test_a_failed_read_is_an_error_and_commits_go_on(self) -> None:
        writer = await written(self.home.new(), 3)
        self.home.break_reads(writer.log)
        error = await fails_with(OSError, self._read(writer.log, RecordPlace(1, 0, 10)))
        assert not isinstance(error, FileNotFoundError), "the device failed: the record is there"
        await writer.write("more", b"1")
        assert writer.failure is None
        await writer.log.close()

    async def _read(self, log: Log, place: RecordPlace) -> bytes:
        (record,) = await log.read([place])
        if isinstance(record, OSError):
            raise record
        return record

    # --- dropping -----------------------------------------------------------------------------------------------------

    async def test_parts_are_all_frames_outside_of_the_open_segment(self) -> None:
        writer = await written(self.home.new(), 80)
        await writer.log.close()
        again = await Writer(self.home.again(writer.log)).open().start()
        log, seen = again.log, dict[int, bytes]()
        assert log.parts >= 3, "a log larger than a part goes on in the next"
        used_bytes = log.used_bytes
        while log.parts:
            part = log.oldest_part()
            assert part.first == log.oldest_frame and part.next > part.first
            found = {frame: bytes(records or b"") async for frame, records in log.frames(part)}
            assert list(found) == list(range(*part))
            seen |= found
            await self._trim(again, part.next)
            assert log.oldest_frame == part.next
            assert log.used_bytes < used_bytes
            used_bytes = log.used_bytes
        before = {place.frame: records for place, records in again.places}
        assert {frame: records for frame, records in seen.items() if frame in before}.items() <= before.items()
        assert len(seen.keys() & before.keys()) >= 70
        await log.close()

    async def _trim(self, writer: Writer, oldest_frame: int) -> None:
        """Trim as the cleaner does: drop the parts when the TRIM record is durable."""
        await writer.room(BODY_BYTES)
        writer.core.trim(3, oldest_frame)
        await writer.settled()
        writer.log.drop_before(oldest_frame)

    async def test_dropped_frames_are_gone_and_the_others_are_replayed(self) -> None:
        writer = await written(self.home.new(), 80)
        part = writer.log.oldest_part()
        await self._trim(writer, part.next)
        await fails_with(FileNotFoundError, self._read(writer.log, RecordPlace(part.first, 0, 10)))
        await writer.log.close()
        again = Writer(self.home.again(writer.log)).open()
        names = [str(number) for number in range(80)]
        kept = [name for name in names if name in again.documents()]
        assert kept and kept == names[-len(kept) :]
        # A close may come before the files are deleted: then the next opening still finds those frames.
        assert again.core.oldest_frame == part.next
        assert again.log.oldest_frame == again.places[0][0].frame in (part.first, part.next)
        await again.log.close()

    async def test_a_kill_between_trim_and_drop_is_repaired_later(self) -> None:
        writer = await written(self.home.new(), 80)
        part = writer.log.oldest_part()
        await writer.room(BODY_BYTES)
        writer.core.trim(3, part.next)
        await writer.settled()
        log = await self.home.killed(writer.log)
        again = await Writer(log).open().start()
        assert (log.oldest_frame, again.core.oldest_frame) == (part.first, part.next)
        log.drop_before(part.next)
        assert log.oldest_frame == part.next
        await log.close()
