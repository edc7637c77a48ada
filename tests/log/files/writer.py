"""Between a log and a core: what the engine does, without the engine. Documents stand for jobs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fastq._core import Core, CoreSettings, RecordPlace
from fastq.log.files.log import LocalLog
from fastq.log.protocol import Log, Opened

if TYPE_CHECKING:
    from fastq._core import Batch

KIND = 9  # of the documents
SMALL = 64 << 10  # the smallest segment


def local(directory: Path, *, segment_bytes: int = SMALL, align: int = 512, cache_bytes: int = 0) -> LocalLog:
    return LocalLog(directory, segment_bytes=segment_bytes, align=align, cache_bytes=cache_bytes)


class Writer:
    """Opens a log, appends documents to it, and knows which are durable."""

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
        """As the engine does: with a record that says the server is back."""
        self.log.start(self._durable, self._failed)
        self.core.resume(1, self.opened.epoch)
        await self.settled()
        return self

    def append(self, name: str, body: bytes) -> int:
        """Put a document into the open batch; the batch's sequence number."""
        self.core.put_document(2, KIND, name, body)
        return self.log.tail.appended_seq

    async def room(self, record_bytes: int) -> None:
        """Wait for a segment to be made ready, if there is none."""
        while not self.log.tail.has_room(record_bytes + 256, 0):
            if self.failure is not None:
                raise self.failure
            await asyncio.sleep(0)

    async def write(self, name: str, body: bytes) -> int:
        """Append a document and return, with its sequence number, when it is durable."""
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


async def write_log(
    directory: Path, bodies: list[bytes], *, close: bool = True, first: int = 0, when_quiet: bool = False, **shape: int
) -> None:
    """One life of a local log: a frame for each body, named by its number from `first` on.

    Without `close` the files are left as a killed process leaves them. With `when_quiet` the log's background work
    ends first.
    """
    writer = await Writer(local(directory, **shape)).open().start()
    for number, body in enumerate(bodies, first):
        await writer.write(str(number), body)
    if when_quiet:
        await quiet(writer)
    if close:
        await writer.log.close()
    else:
        await abandon(writer)


async def quiet(writer: Writer) -> None:
    """Wait until the segments that were to be made or shortened are."""
    log = writer.log
    assert isinstance(log, LocalLog) and log._ready is not None
    while log._ready._work is not None:
        await asyncio.wait([log._ready._work])


def write(directory: Path, bodies: list[bytes], **how: int) -> None:
    """`write_log` for tests that have no loop."""
    asyncio.run(write_log(directory, bodies, **how))  # type: ignore[arg-type]


async def abandon(writer: Writer) -> None:
    """End a local log's threads and lock without its last words, as if the process had been killed here."""
    log = writer.log
    assert isinstance(log, LocalLog)
    log._opened_seq = log._durable_seq  # nothing to say at the end
    await log.close()


def read_back(directory: Path, **shape: int) -> Writer:
    """Open a local log as the next process would, and let it go again."""
    log = local(directory, **shape)
    writer = Writer(log).open()
    log._release()
    return writer


def bodies_of(sizes: list[int]) -> list[bytes]:
    """Bodies of the given sizes, each unlike the others."""
    return [os.urandom(size) for size in sizes]
