"""The streams of GET /events, and what is told to all of them.

An event is encoded once for all streams that see the same. A stream only joins what was encoded for it, so a reader
costs one write for each piece. A reader that is too slow is dropped: what it has not read would take memory.

A stream shows only what is durable: changes come from the engine's feed, which shows no other, and figures are told
when all that they may show is durable.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastq._core import JobChange
from fastq.engine import Engine
from fastq.engine.commands import Principal
from fastq.engine.feed import Changed
from fastq.errors import ApiError, Draining, TooManyStreams
from fastq.http.reply import encode, time_of
from fastq.services.auth import Authenticator

_log = logging.getLogger("fastq.http.events")

STREAMS_MAX = 1_000
UNREAD_BYTES_MAX = 256 << 10  # of one stream, beside what the kernel holds
STATS_S = 1.0
COMMENT_S = 15
SLICE_STREAMS = 100  # told in one turn of the loop
PACE_S_PER_STREAM = 0.000_25  # between two batches of changes: with 1,000 streams they come four times a second
RETRY_MS = 2_000
COMMENT = b":\n\n"

_EVENT_ID = re.compile(r"[0-9]{1,18}", re.ASCII)


class Link(Protocol):
    """The request of a stream, and its connection."""

    async def again(self) -> tuple[Principal, int]:
        """Authenticate the request again; return also the authenticator's generation.

        Raises:
            ApiError: its key is no longer valid, or may no longer do this.
        """

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call it when the connection closes."""

    def abort(self) -> None:
        """Close the connection at once, with what is not read."""


class Stream:
    """One reader: an async iterator over pieces of its answer."""

    is_durable = True  # see OutputCommit

    def __init__(self, who: Principal, generation: int, link: Link, leave: Callable[[Stream], None]) -> None:
        self.who, self.generation = who, generation
        self._link, self._leave = link, leave
        self._is_doubtful = False  # the key has changed: nothing leaves before it is authenticated again
        self.has_ended = False
        self._pieces: list[bytes] = []
        self._unread_bytes = 0
        self._woken: asyncio.Future[None] | None = None

    def add(self, piece: bytes) -> None:
        """Add a piece. A reader with too much unread is dropped."""
        self._pieces.append(piece)
        self._unread_bytes += len(piece)
        if self._unread_bytes > UNREAD_BYTES_MAX and not self.has_ended:
            self.end()
            self._link.abort()
        self._wake()

    def doubt(self) -> None:
        self._is_doubtful = True
        self._wake()

    def end(self) -> None:
        self.has_ended = True
        self._pieces.clear()
        self._leave(self)
        self._wake()

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        while True:
            if self._is_doubtful and not self.has_ended:
                await self._authenticate()
            if self.has_ended:
                raise StopAsyncIteration
            if self._pieces:
                pieces, self._pieces, self._unread_bytes = self._pieces, [], 0
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._woken = asyncio.get_running_loop().create_future()
            await self._woken

    async def _authenticate(self) -> None:
        """End the stream if the key is no longer valid, or sees something else than before."""
        self._is_doubtful = False
        try:
            who, self.generation = await self._link.again()
        except ApiError:
            self.end()
            return
        if sight_of(who) != sight_of(self.who):
            self.end()
        else:
            self.who = who

    async def close(self) -> None:
        """Falcon calls this at the end of the answer."""
        self.end()


Sight = tuple[Any, ...]


def sight_of(who: Principal) -> Sight:
    """What a caller sees. Callers with the same get the same events."""
    return who.sees.owner_id, who.sees.queues, who.oversees.owner_id, who.oversees.queues


@dataclass(slots=True)
class _Readers:
    """The streams that see the same. `who`: one of those who read them."""

    who: Principal
    streams: dict[Stream, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Encoded:
    """Changes, and their events for everybody who sees them."""

    changed: Changed
    events: list[tuple[JobChange, bytes]]


class EventStreams:
    """All streams of a server. It works only while there are some."""

    def __init__(self, engine: Engine, auth: Authenticator, figures: Callable[[Principal], Awaitable[Any]]) -> None:
        """
        Args:
            figures: returns the data of the event `stats` for a caller.
        """
        self._engine, self._auth, self._figures = engine, auth, figures
        self._readers: dict[Sight, _Readers] = {}
        self._seq = 0  # of the last change that was told
        self._tasks: list[asyncio.Task[None]] = []
        self._turn = asyncio.Lock()  # while a piece goes to all: each stream gets its pieces in order
        engine.watch_waits(self.end_of)

    @property
    def count(self) -> int:
        return sum(len(readers.streams) for readers in self._readers.values())

    # --- streams that come and go -------------------------------------------------------------------------------------

    async def open(self, who: Principal, generation: int, last_event_id: str, link: Link) -> Stream:
        """Begin a stream: first the changes that it missed, then the figures.

        Args:
            generation: of the authenticator, when it returned `who`.
            last_event_id: of the last event that the client has; empty: none.
        Raises:
            Draining, TooManyStreams.
        """
        figures = encode(await self._figures(who))
        self._make_room(who.key_id)
        stream = Stream(who, generation, link, self._leave)
        self._readers.setdefault(sight_of(who), _Readers(who)).streams[stream] = None
        if not self._tasks:
            self._seq = self._engine.feed.newest()
            self._tasks = [asyncio.create_task(work()) for work in (self._tell_changes, self._tell_figures, self._care)]
            for task in self._tasks:
                task.add_done_callback(self._ended)
        stream.add(b"retry: %d\n\n" % RETRY_MS)
        if missed := self._missed(who, last_event_id):
            stream.add(missed)
        stream.add(_event("stats", self._seq, figures))
        link.on_close(stream.end)
        return stream

    def _make_room(self, key_id: str) -> None:
        """Check that there is room for a stream. A key that has many makes room for one that has few."""
        if self._engine.draining:
            raise Draining
        if self.count < STREAMS_MAX:
            return
        streams = self._streams()
        held = Counter(stream.who.key_id for stream in streams)
        greediest, most = held.most_common(1)[0]
        if most <= held[key_id] + 1:
            raise TooManyStreams(STREAMS_MAX)
        next(stream for stream in streams if stream.who.key_id == greediest).end()

    def _leave(self, stream: Stream) -> None:
        sight = sight_of(stream.who)
        readers = self._readers.get(sight)
        if readers is None or readers.streams.pop(stream, stream) is stream:
            return
        if not readers.streams:
            del self._readers[sight]
        if not self._readers:
            self.stop()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """End all streams if their work has failed: their clients come back, and it begins again."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the event streams end: %s", error, exc_info=error)
            for stream in self._streams():
                stream.end()

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    def end_of(self, key_ids: Collection[str] | None) -> None:
        """End the streams of these keys, unless they are still valid; None: of all keys. A drain ends all streams."""
        for stream in self._streams():
            if self._engine.draining:
                stream.end()
            elif key_ids is None or stream.who.key_id in key_ids:
                stream.doubt()

    def _streams(self) -> list[Stream]:
        return [stream for readers in self._readers.values() for stream in readers.streams]

    # --- changes ------------------------------------------------------------------------------------------------------

    def _missed(self, who: Principal, last_event_id: str) -> bytes:
        """What a client missed that comes back."""
        if _EVENT_ID.fullmatch(last_event_id) is None:
            return b""
        return self._told(self._encoded(self._engine.feed.since(int(last_event_id), self._seq)), who)

    async def _tell_changes(self) -> None:
        with self._engine.feed.subscribe(self._seq) as feed:
            async for changed in feed:
                encoded = self._encoded(changed)
                async with self._turn:
                    if changed.changes:
                        self._seq = changed.changes[-1].seq
                    for readers in list(self._readers.values()):
                        await self._tell(readers, self._told(encoded, readers.who))
                await asyncio.sleep(self.count * PACE_S_PER_STREAM)

    def _told(self, encoded: _Encoded, who: Principal) -> bytes:
        """The events that a caller sees. How many were left out would say something of others' jobs."""
        sees, changed = who.sees, encoded.changed
        pieces = [event for change, event in encoded.events if sees.is_all or sees.has(change.owner_id, change.queue)]
        if changed.left_out or changed.lost:
            known = sees.is_all and not changed.lost
            pieces.append(_event("left_out", None, encode({"count": changed.left_out} if known else {})))
        return b"".join(pieces)

    def _encoded(self, changed: Changed) -> _Encoded:
        return _Encoded(changed, [(change, _event("job", change.seq, _job(change))) for change in changed.changes])

    async def _tell(self, readers: _Readers, piece: bytes) -> None:
        """Add a piece to all their streams, a slice in each turn of the loop."""
        streams = list(readers.streams) if piece else []
        for at in range(0, len(streams), SLICE_STREAMS):
            for stream in streams[at : at + SLICE_STREAMS]:
                stream.add(piece)
            await asyncio.sleep(0)

    # --- figures, comments and keys -----------------------------------------------------------------------------------

    async def _tell_figures(self) -> None:
        """Tell the figures once a second; with very many kinds of readers less often, so that half the time is left."""
        took_s, now_us = 0.0, self._engine.now_us
        while True:
            await asyncio.sleep(max(STATS_S - took_s, took_s))
            began_us = now_us()
            figures = [(readers, encode(await self._figures(readers.who))) for readers in list(self._readers.values())]
            await self._engine.commits.visible(self._engine.commits.shown_seq)
            async with self._turn:
                for readers, data in figures:
                    await self._tell(readers, _event("stats", self._seq, data))
            took_s = (now_us() - began_us) / 1e6

    async def _care(self) -> None:
        """Comment each COMMENT_S, so that nobody takes a quiet stream for a dead one. Look for keys that expired."""
        seconds = 0
        while True:
            await asyncio.sleep(1)
            seconds += 1
            for stream in self._streams():
                if not self._auth.is_current(stream.who, stream.generation):
                    stream.doubt()
                elif seconds % COMMENT_S == 0:
                    stream.add(COMMENT)


def _event(name: str, seq: int | None, data: bytes) -> bytes:
    event_id = b"" if seq is None else b"id: %d\n" % seq
    return b"event: %s\n%sdata: %s\n\n" % (name.encode(), event_id, data)


def _job(change: JobChange) -> bytes:
    return encode(
        {
            "job_id": change.job_id,
            "what": change.what,
            "state": change.state,
            "queue": change.queue,
            "group": change.group,
            "attempt": change.attempt,
            "at": time_of(change.at_us),
        }
    )
