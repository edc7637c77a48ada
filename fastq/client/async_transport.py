"""The asyncio transport: a pool of HTTP connections."""

from __future__ import annotations

import asyncio
import ssl
from typing import Protocol, cast

from fastq.client import forks
from fastq.client.errors import ServerUnreachable
from fastq.client.protocol import Answer, Call
from fastq.client.unreachable import CHECK_URL, CLOSED, no_answer, no_connection, no_free_connection
from fastq.client.wire import Address, Reply
from fastq.clock import monotonic_us

IDLE_MAX = 64  # idle connections in the pool


class AsyncTransport(Protocol):
    """Sends the requests of an AsyncClient. Pass another implementation as `transport=`."""

    async def send(self, call: Call[object], timeout_s: float) -> Answer:
        """Send one request. Raises ServerUnreachable: no answer within `timeout_s` seconds, or no connection."""

    async def close(self) -> None:
        """Close all connections."""


class LoopTransport:
    """At most `connections_max` connections, and one more for each long poll."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None = None, connections_max: int = 64) -> None:
        self._address = address
        self._tls = (tls or ssl.create_default_context()) if address.is_tls else None
        self._connections_max = connections_max
        self._idle: list[_Connection] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots = asyncio.Semaphore(connections_max)
        self._closed = False

    async def send(self, call: Call[object], timeout_s: float) -> Answer:
        self._bind_loop()
        if call.wait_ms:
            return await self._send(call, timeout_s)
        deadline_us, slots = monotonic_us() + int(timeout_s * 1e6), self._slots
        try:
            async with asyncio.timeout(timeout_s if slots.locked() else None):
                await slots.acquire()
        except TimeoutError as error:
            raise no_free_connection(self._connections_max, timeout_s) from error
        try:
            return await self._send(call, max(0.001, (deadline_us - monotonic_us()) / 1e6))
        finally:
            slots.release()

    async def close(self) -> None:
        self._closed = True
        closing, self._idle = self._idle, []
        for connection in closing:
            connection.close()
        await asyncio.sleep(0)  # the loop closes the sockets in its next iteration

    def _bind_loop(self) -> None:
        """Drop the connections of an earlier event loop: a connection belongs to one loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._idle, self._slots = loop, [], asyncio.Semaphore(self._connections_max)

    async def _send(self, call: Call[object], timeout_s: float) -> Answer:
        request = self._address.request(call)
        connection = self._take_idle()
        try:
            async with asyncio.timeout(timeout_s):
                if connection is None:
                    connection = await self._connect()
                answer = await connection.ask(request)
        except TimeoutError as error:
            if connection is None:
                raise no_connection(self._address, TimeoutError(f"none within {timeout_s:.3g} s")) from error
            raise no_answer(timeout_s) from error
        finally:
            if connection is not None:
                self._give_back(connection)
        return answer

    def _take_idle(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_good:
                return connection
            connection.close()
        return None

    def _give_back(self, connection: _Connection) -> None:
        if connection.is_good and not self._closed and len(self._idle) < IDLE_MAX:
            self._idle.append(connection)
        else:
            connection.close()

    async def _connect(self) -> _Connection:
        """Raises ServerUnreachable: nothing was sent."""
        address = self._address
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(_Connection, address.host, address.port, ssl=self._tls)
        except OSError as error:
            raise no_connection(address, error) from error
        return connection


class _Connection(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._reply: Reply | None = None
        self._answered: asyncio.Future[Answer] | None = None
        self._is_lost = False
        self.is_good = True
        """Whether it is open and idle."""

    async def ask(self, request: bytes) -> Answer:
        """Send a request and read its answer. A cancel makes the connection unusable. Raises ServerUnreachable."""
        if not self.is_good:
            raise ServerUnreachable("the connection was closed", sent=False)
        self.is_good = False
        self._reply, self._answered = Reply(), asyncio.get_running_loop().create_future()
        self._transport.write(request)
        answer = await self._answered
        self.is_good = self._reply.keep_alive and not self._transport.is_closing()
        self._reply = None
        return answer

    def close(self) -> None:
        self.is_good = False
        forks.shut(self)  # for the server, even if a child process of a handler still holds the connection
        self._transport.abort()  # at once: unsent bytes are dropped

    def fileno(self) -> int:
        """-1 when it is closed."""
        opened = self._transport.get_extra_info("socket")
        return -1 if self._is_lost or opened is None else int(opened.fileno())

    # --- called by the loop -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not subclass asyncio's
        forks.keep_private(self)

    def data_received(self, data: bytes) -> None:
        reply, answered = self._reply, self._answered
        if reply is None or answered is None or answered.done():  # bytes without a request
            self.close()
            return
        try:
            reply.feed(data)
        except ValueError as error:
            self._fail(str(error), is_final=True)
            self.close()
            return
        if (answer := reply.answer) is not None:
            answered.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_good, self._is_lost = False, True
        self._fail(f"{CLOSED}{f': {error}' if error else ''}")

    def _fail(self, message: str, is_final: bool = False) -> None:
        if self._answered is not None and not self._answered.done():
            error = ServerUnreachable(message, sent=True, is_final=is_final, advice=CHECK_URL)
            self._answered.set_exception(error)
