"""Where connections come in, and how many there may be.

A connection is a file descriptor, and the log needs some too: for its segments, the spares that it makes, what it reads
back. So connections get their share of what the process may open and no more; who comes when all are in use is told so
and sent away, in the clear that is (in TLS nothing can be said before a handshake, and that would need a descriptor).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import ssl
from collections.abc import Callable, Collection

from fastq.errors import BadSetting, Overloaded
from fastq.http.errors import error_body, headers_of, status_of
from fastq.http.reply import JSON

logger = logging.getLogger("fastq.http")

OPEN_FILES_MIN = 256
OPEN_FILES_KEPT = 160  # for the log (64 segments to read from, spares, a backup), the key store, the process itself
ACCEPTED_AT_ONCE = 64  # before other work gets its turn
HANDSHAKE_S_MAX = 10.0
CONNECTIONS_UNBOUNDED = 1 << 20  # where the system sets no limit
TELL_S = 60.0  # between two log lines that say the same
PAUSE_S = 0.1  # after the system had no descriptor or memory for a connection: it stays in the queue


def raise_file_limit() -> None:
    """Take as many descriptors as the process may have.

    Raises:
        BadSetting: so few that nothing could be relied on.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limit < OPEN_FILES_MIN:
        raise BadSetting(f"ulimit -n: {limit} open files are too few; allowed: {OPEN_FILES_MIN} and more")


def connections_max() -> int:
    """How many connections there can be at once."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (limit if limit >= 0 else CONNECTIONS_UNBOUNDED) - OPEN_FILES_KEPT


class Door:
    """Accepts connections on a listening socket; what uvicorn takes for a server of asyncio."""

    def __init__(
        self,
        listener: socket.socket,
        connections_max: int,
        connections: Collection[object],
        make_protocol: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None,
    ) -> None:
        """
        Args:
            connections: those that are open now.
        """
        self._listener, self._connections_max, self._connections = listener, connections_max, connections
        self._make_protocol, self._tls = make_protocol, tls
        self._coming: set[asyncio.Task[None]] = set()  # accepted; a moment longer than until they are in `connections`
        self._told: set[str] = set()  # in the last minute
        self._pause: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        error = Overloaded(f"the maximum of {connections_max} connections are open: try again")
        headers = {"Content-Type": JSON, "Connection": "close", **headers_of(error)}
        body = error_body(error)
        lines = [f"HTTP/1.1 {status_of(error)} Service Unavailable", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._refusal = "\r\n".join([*lines, "", ""]).encode() + body

    def open(self, backlog: int) -> None:
        self._listener.listen(backlog)
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Nobody comes in any more. The socket is its owner's to close."""
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()

    async def wait_closed(self) -> None:
        if self._coming:
            await asyncio.wait(self._coming)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor or no memory: without a pause we would be told so for ever
                self._tell(f"no connection can be accepted: {error.strerror}")
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(PAUSE_S, self._loop.add_reader, self._listener, self._accept)
                return
            if len(self._connections) + len(self._coming) >= self._connections_max:
                self._refuse(connection)
            else:
                task = self._loop.create_task(self._let_in(connection))
                self._coming.add(task)
                task.add_done_callback(self._coming.discard)

    async def _let_in(self, connection: socket.socket) -> None:
        handshake_s = None if self._tls is None else HANDSHAKE_S_MAX
        with contextlib.suppress(OSError):  # it went away, or is no TLS
            connection.setblocking(False)
            await self._loop.connect_accepted_socket(
                self._make_protocol, connection, ssl=self._tls, ssl_handshake_timeout=handshake_s
            )

    def _refuse(self, connection: socket.socket) -> None:
        self._tell(f"{self._connections_max} connections are open: no more are let in")
        with contextlib.suppress(OSError):
            connection.setblocking(False)
            if self._tls is None:
                connection.send(self._refusal)
                connection.shutdown(socket.SHUT_WR)
        connection.close()

    def _tell(self, warning: str) -> None:
        """Not for each connection: whoever makes many would fill the log."""
        if warning not in self._told:
            self._told.add(warning)
            self._loop.call_later(TELL_S, self._told.discard, warning)
            logger.warning("%s", warning)
