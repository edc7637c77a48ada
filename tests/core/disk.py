"""A core over a log in memory, with syncs, crashes and a cleaner."""

from __future__ import annotations

from typing import NamedTuple

from fastq._core import (
    ATTEMPTS_KEPT,
    EVENTS_KEPT,
    FRAME_HEAD_BYTES,
    FRAME_RECORD_BYTES_MAX,
    HISTORY_BYTES_MAX,
    Core,
    CoreSettings,
    LiveDocument,
    LiveJob,
    LiveKey,
    RecordPlace,
    Tail,
    history_of,
    read_event,
)

SEGMENT_BYTES = 64 * 1024
DATABASE_ID = bytes(range(16))


class Frame(NamedTuple):
    seq: int
    segment: int
    records: bytes


class Disk:
    """Frames that are durable, in order."""

    def __init__(self, segment_bytes: int = SEGMENT_BYTES, batch_bytes_max: int = 16 * 1024) -> None:
        self.frames: list[Frame] = []
        self.seq = 0  # of the last durable frame
        self.segments = 0
        self.segment_bytes = segment_bytes
        self.batch_bytes_max = batch_bytes_max
        self.tail: Tail
        self.core: Core

    def open(self, now_us: int, epoch: int, settings: CoreSettings) -> None:
        """Make a new core from the durable frames, as a start does."""
        self.tail = Tail(512, 4096, self.batch_bytes_max)
        self.core = self.replayed(self.tail, settings)
        self.tail.resume(self.seq + 1)
        self.offer()
        self.core.resume(now_us, epoch)

    def replayed(self, tail: Tail, settings: CoreSettings) -> Core:
        core = Core(tail, settings)
        core.identify(DATABASE_ID)
        for frame in self.frames:
            core.replay(frame.records, frame.seq)
        return core

    def offer(self) -> None:
        while self.tail.segments_offered < 2:
            self.segments += 1
            self.tail.offer_segment(self.segments, 4096, self.segment_bytes)

    def sync(self) -> None:
        while (batch := self.tail.take()) is not None:
            frame = bytes(batch)
            assert len(frame) == batch.frame_bytes and batch.frame_bytes % 512 == 0 and batch.seq == self.seq + 1
            assert batch.offset + batch.frame_bytes <= self.segment_bytes - 512
            assert not any(frame[FRAME_HEAD_BYTES + batch.record_bytes :]), "padding is not zero"
            records = frame[FRAME_HEAD_BYTES : FRAME_HEAD_BYTES + batch.record_bytes]
            self.frames.append(Frame(batch.seq, batch.segment, records))
            self.seq = batch.seq
            self.tail.durable(batch.seq)
        assert self.tail.unsynced_bytes == 0 and self.tail.durable_seq == self.tail.appended_seq

    def record(self, place: RecordPlace) -> bytes:
        """The record at a place, from the cache or the durable frames. If both have it, they agree."""
        on_disk = None
        for frame in self.frames:
            if frame.seq == place.frame:
                on_disk = frame.records[place.offset : place.offset + place.bytes]
        cached = self.tail.cached(place)
        assert cached is not None or on_disk is not None, f"nothing is at {place}"
        assert cached is None or on_disk is None or cached == on_disk
        return cached if cached is not None else on_disk  # type: ignore[return-value]

    def history(self, number: int, place: RecordPlace | None) -> list[bytes]:
        """The kept records of a job's history, newest first."""
        chain: list[bytes] = []
        while place is not None and len(chain) < EVENTS_KEPT:
            found, place = history_of(self.record(place), number)
            chain += found
        kept: list[bytes] = []
        for record in chain:
            attempts = sum(read_event(one).what == "attempt" for one in kept)
            if len(kept) >= EVENTS_KEPT or attempts >= ATTEMPTS_KEPT or sum(map(len, kept)) >= HISTORY_BYTES_MAX:
                break
            kept.append(record)
        return kept

    # --- parts ------------------------------------------------------------------------------------------------------

    def oldest_part(self) -> tuple[list[Frame], int] | None:
        """The frames of the oldest needed segment, and the first frame after it; None: there is only one segment."""
        frames = [frame for frame in self.frames if frame.seq >= self.core.oldest_frame]
        if not frames or frames[0].segment == frames[-1].segment:
            return None
        oldest = frames[0].segment
        later = next(frame.seq for frame in frames if frame.segment > oldest)
        return [frame for frame in frames if frame.segment == oldest], later

    def drop_before(self, frame: int) -> None:
        self.frames = [kept for kept in self.frames if kept.seq >= frame]

    # --- the cleaner ------------------------------------------------------------------------------------------------

    def clean(self, now_us: int, stop_after: str) -> bool:
        """Move the live records of the oldest segment, log the TRIM, drop the segment; or only the first steps.

        Everything must be synced. Returns False if there is only one segment.
        """
        if (part := self.oldest_part()) is None:
            return False
        frames, later = part
        for frame in frames:
            while found := self.core.live_records(frame.records, frame.seq):
                moved = 0
                for live in found:
                    self.offer()
                    moved += self.move(now_us, live)
                    assert not self.move(now_us, live), "moved twice"
                assert moved, "a live record is not moved"
        for frame in frames:
            assert self.core.live_records(frame.records, frame.seq) == []
        if stop_after == "move":
            return True
        self.offer()
        self.core.trim(now_us, later)
        self.sync()
        if stop_after != "trim":
            self.drop_before(later)
        return True

    def rewritten_bytes(self, now_us: int) -> int:
        """Rewrite everything that is live, on a copy of the disk; returns the bytes of the records written."""
        copy = Disk(1 << 30, FRAME_RECORD_BYTES_MAX)
        copy.frames, copy.seq = list(self.frames), self.seq
        copy.open(now_us, 1, CoreSettings())
        copy.sync()
        before = copy.seq
        for frame in copy.frames[:]:
            while found := copy.core.live_records(frame.records, frame.seq):
                for live in found:
                    copy.move(now_us, live)
        copy.sync()
        return sum(len(frame.records) for frame in copy.frames if frame.seq > before)

    def move(self, now_us: int, live: LiveJob | LiveDocument | LiveKey) -> bool:
        if isinstance(live, LiveDocument):
            return self.core.move_document(now_us, live)
        if isinstance(live, LiveKey):
            return self.core.move_key(now_us, live)
        history = self.history(live.seq, live.history_place)
        if live.close_place and (close := self.record(live.close_place)) not in history:
            history.append(close)
        lease = self.record(live.lease_place) if live.lease_place else None
        return self.core.move_job(live, self.record(live.place), lease, history)
