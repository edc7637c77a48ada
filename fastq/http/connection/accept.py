"""Accept connections up to a limit.

A connection is a file descriptor. The log needs descriptors too: for its segments, its spare files and its reads. So
connections get a part of the process's descriptors. A connection above the limit is answered 503 and closed. With TLS
it is closed without an answer, since a handshake needs the descriptor.
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
OPEN_FILES_KEPT = 160  # for the log (64 segments for reads, spares, a backup), the key store and the process
ACCEPTED_AT_ONCE = 64  # before the loop does other work
HANDSHAKE_S_MAX = 10.0
CONNECTIONS_UNBOUNDED = 1 << 20  # if the system has no limit
WARN_S = 60.0  # between two equal log lines
PAUSE_S = 0.1  # after accept() failed for lack of a descriptor or memory; the connection stays in the queue


def raise_file_limit() -> None:
    """Raise the limit of open files to the hard limit.

    Raises:
        BadSetting: the limit is below OPEN_FILES_MIN.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limit < OPEN_FILES_MIN:
        raise BadSetting(f"ulimit -n: {limit} open files are too few; allow {OPEN_FILES_MIN} or more")


def connections_max() -> int:
    """Return the limit of open connections."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (limit if limit >= 0 else CONNECTIONS_UNBOUNDED) - OPEN_FILES_KEPT


class Acceptor:
    """Accepts connections on a listening socket. uvicorn uses it as an asyncio server."""

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
            connections: the open ones.
            tls: also an attribute; a new value is for the connections accepted from then on.
        """
        self._listener, self._connections_max, self._connections = listener, connections_max, connections
        self._make_protocol, self.tls = make_protocol, tls
        self._starting: set[asyncio.Task[None]] = set()  # accepted ones that may not be in `connections` yet
        self._warned: set[str] = set()  # in the last WARN_S seconds
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
        """Stop accepting. The caller closes the socket."""
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()

    async def wait_closed(self) -> None:
        if self._starting:
            await asyncio.wait(self._starting)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor or no memory: without a pause the loop would spin
                self._warn(f"cannot accept connections: {error.strerror}")
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(PAUSE_S, self._loop.add_reader, self._listener, self._accept)
                return
            if len(self._connections) + len(self._starting) >= self._connections_max:
                self._refuse(connection)
            else:
                task = self._loop.create_task(self._start(connection))
                self._starting.add(task)
                task.add_done_callback(self._starting.discard)

    async def _start(self, connection: socket.socket) -> None:
        handshake_s = None if self.tls is None else HANDSHAKE_S_MAX
        with contextlib.suppress(OSError):  # the client is gone, or does not speak TLS
            connection.setblocking(False)
            await self._loop.connect_accepted_socket(
                self._make_protocol, connection, ssl=self.tls, ssl_handshake_timeout=handshake_s
            )

    def _refuse(self, connection: socket.socket) -> None:
        self._warn(f"{self._connections_max} connections are open, the limit: new ones are refused")
        with contextlib.suppress(OSError):
            connection.setblocking(False)
            if self.tls is None:
                connection.send(self._refusal)
                connection.shutdown(socket.SHUT_WR)
        connection.close()

    def _warn(self, warning: str) -> None:
        """Log a warning, at most once in WARN_S seconds: a client could fill the log."""
        if warning not in self._warned:
            self._warned.add(warning)
            self._loop.call_later(WARN_S, self._warned.discard, warning)
            logger.warning("%s", warning)
