"""The expected state of a walk after each frame: the core's hash, and the model of each job."""

from __future__ import annotations

import copy
import pickle
import struct
from collections import Counter
from pathlib import Path
from zlib import crc32

from fastq._core import RECORD_NAMES, Core, RecordPlace
from fastq.log.files._index import FrameIndex
from fastq.log.files.log import LocalLog
from fastq.log.files.places import SpanReader
from fastq.log.files.recovery import Found
from fastq.log.files.segments import segment_numbers, segment_path
from tests.core.agreement import agree_on, agree_on_history
from tests.core.disk import Disk
from tests.core.model import Server
from tests.log.files.accounts import recovered, types_of
from tests.log.files.walk import FiledWorld, Saved, save

MODELS_KEPT = 8


class Recovered(Disk):
    """A recovered directory, beside its expected state."""

    def __init__(self, directory: Path, core: Core, index: FrameIndex, saved: Saved) -> None:
        self.core, self.model, self.now_us = core, saved.model, saved.now_us
        self._index, self._spans = index, SpanReader(directory)

    def record(self, place: RecordPlace) -> bytes:
        return self._spans.read(self._index.span(place))

    def close(self) -> None:
        self._spans.close()


class Oracle:
    """See `tests.log.files.crashes.Told`."""

    def __init__(self) -> None:
        self.acked_seq = 0
        self.records: Counter[str] = Counter()  # by type
        self.counts: Counter[str] = Counter()
        self._kept: dict[int, bytes] = {}  # by frame: a pickled Saved
        self._next: tuple[int, bytes] | None = None
        self._loaded: dict[int, Saved] = {}
        self._read: set[tuple[int, int]] = set()  # sound parts in which everything was read

    def fork(self) -> Oracle:
        other = copy.copy(self)
        other._kept, other._loaded, other._read = dict(self._kept), {}, set()
        return other

    def note(self, data: bytes) -> None:
        kind, seq = struct.unpack_from("<cQ", data)
        if kind == b"A":
            self.acked_seq = max(self.acked_seq, seq)
        elif kind == b"M":
            self._next = (seq, data[9:])
        else:
            self.records.update(RECORD_NAMES[kind] for kind in types_of(data[9:]))
            for number in [number for number in self._kept if number >= seq]:  # a crash lost those
                del self._kept[number]
                self._loaded.pop(number, None)
            if self._next is not None and self._next[0] == seq:
                self._kept[seq] = self._next[1]
            self._next = None  # a later life may write a frame of that number without knowing what holds after it

    def saved(self, seq: int) -> Saved | None:
        """The expected state after that frame; None for a frame within a step."""
        if seq == 0:
            return Saved.new()
        if seq not in self._loaded and seq in self._kept:
            while len(self._loaded) >= MODELS_KEPT:
                del self._loaded[next(iter(self._loaded))]
            self._loaded[seq] = pickle.loads(self._kept[seq])
        return self._loaded.get(seq)

    def hand_over(self, directory: Path) -> bool:
        _, found = recovered(directory)
        seq = found.next_seq - 1
        if seq in self._kept:
            save(directory, seq, self._kept[seq])
        return seq == 0 or seq in self._kept

    def verdict(self, directory: Path) -> str:
        core, found = recovered(directory)
        last_seq = found.next_seq - 1
        if last_seq < self.acked_seq:
            return "lost"
        saved = self.saved(last_seq)
        if saved is None or last_seq == 0:
            return "right"
        core.check()
        if core.state_hash() != saved.state_hash:
            return f"wrong: not the state after frame {last_seq}"
        if (sound := sound_part(directory, found)) in self._read:
            return "right"
        try:
            self._read_all(directory, core, found.index, saved)
        except (AssertionError, OSError, ValueError) as error:
            return f"wrong: {error!r:.300}"
        self._read.add(sound)
        return "right"

    def _read_all(self, directory: Path, core: Core, index: FrameIndex, saved: Saved) -> None:
        world = Recovered(directory, core, index, saved)
        try:
            read_all(world)  # type: ignore[arg-type]
        finally:
            world.close()
        self.counts["jobs read"] += len(saved.model.jobs)

    def go_on(self, directory: Path) -> None:
        """Open three times, the second after a crash, the third after cleaning everything."""
        _, found = recovered(directory)
        saved = self.saved(found.next_seq - 1)
        if saved is None:
            return
        kept = {found.next_seq - 1: saved}
        for ends in ("killed", "cleaned", "closed"):
            log = LocalLog(directory, segment_bytes=64 << 10, align=512, cache_bytes=0)
            world = FiledWorld(log, Server(), kept.__getitem__, lambda seq, one: kept.update({seq: copied(one)}))
            read_all(world)
            if ends == "cleaned":
                world.clean_all()
                read_all(world)
            if ends == "closed":
                world.close()
            else:
                world.abandon()


def sound_part(directory: Path, found: Found) -> tuple[int, int]:
    """The last frame, and a digest of everything before the torn tail: states often share this part."""
    digest = 0
    for number in segment_numbers(directory):
        content = segment_path(directory, number).read_bytes()
        digest = crc32(content[: found.torn_offset] if number == found.torn_segment else content, digest)
    return found.next_seq - 1, digest


def copied(saved: Saved) -> Saved:
    copy_of: Saved = pickle.loads(pickle.dumps(saved))
    return copy_of


def read_all(world: FiledWorld) -> None:
    """Compare every job with the model: its state, payload, result and whole history."""
    jobs = world.model.jobs
    for job in jobs.values():
        agree_on(world, job)
        agree_on_history(world, job)
    assert world.core.counts()["jobs"] == len(jobs)
    assert world.core.documents(1) == {name: body for (_, name), body in world.model.documents.items()}
