"""A server's connection without a socket: the protocol receives exactly the pieces that the test gives."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from fastq.http.connection.protocol import Protocol
from tests.http.world import World

QUIET_TURNS = 3  # of the loop without work: what one callback leaves to the next is done
QUIET_TURNS_IN_BODY = 20  # the application also starts
TURNS_MAX = 200_000


class MemoryConnection(asyncio.Transport):
    """One connection of a world's server, and its transport.

    `answered` is what the server sent and the client did not take yet.
    """

    def __init__(self, world: World) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self._world = world
        self._loop = asyncio.get_running_loop()
        self._unread: deque[bytes] = deque()
        self._paused = self._closing = self._lost = self.half_closed = False
        self.answered = bytearray()
        server = world.server
        make: Any = server.config.http_protocol_class
        self.protocol: Protocol = make(config=server.config, server_state=server.server_state, app_state={})
        self.protocol.connection_made(self)

    # --- the client's end ---------------------------------------------------------------------------------------------

    def send(self, *pieces: bytes) -> None:
        self._unread += pieces
        self._deliver()

    def take(self) -> bytes:
        answered = bytes(self.answered)
        self.answered.clear()
        return answered

    @property
    def is_open(self) -> bool:
        return not (self._closing or self.half_closed)

    async def at_rest(self) -> None:
        """Return when the server has nothing left to do for what was sent."""
        quiet = 0
        for _ in range(TURNS_MAX):
            await asyncio.sleep(0)
            quiet = 0 if self._is_busy() else quiet + 1
            if quiet == (QUIET_TURNS_IN_BODY if self.protocol._in_body else QUIET_TURNS):
                return
        raise AssertionError(f"the server is not done: {self.protocol.__dict__}")

    def _is_busy(self) -> bool:
        protocol, commits = self.protocol, self._world.engine.commits
        cycle = protocol.cycle  # none once the connection is lost
        lacks_body = protocol._in_body and cycle is not None and protocol._active is cycle and not cycle.body
        return bool(
            (self._world.server.server_state.tasks and not lacks_body)
            or commits.shown_seq > self._world.log.tail.durable_seq
            or (self._unread and self.is_open and not self._paused)
        )

    def is_watched(self) -> bool:
        """Whether a timer will end this connection if nothing more arrives."""
        protocol = self.protocol
        timers = (
            protocol._deadline,
            protocol._unread.timer,
            protocol.timeout_keep_alive_task,
            getattr(protocol, "_idle", None),
        )
        return any(timer is not None and not timer.cancelled() for timer in timers)

    def is_between_requests(self) -> bool:
        protocol = self.protocol
        return not (protocol._in_head or protocol._in_body or protocol._head_bytes)

    # --- the transport ------------------------------------------------------------------------------------------------

    def _deliver(self) -> None:
        while self._unread and not (self._paused or self._closing):
            self.protocol.data_received(self._unread.popleft())

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._loop.call_soon(self._deliver)

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: Any) -> None:
        assert not (self._lost or self.half_closed), "nothing is written after the end"
        self.answered += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The client takes everything at once."""

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.half_closed = True

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._lose)

    abort = close

    def _lose(self) -> None:
        self._lost = True
        self.protocol.connection_lost(None)
