"""The blocking transport: a thread-safe pool of HTTP connections."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from fastq.client import forks
from fastq.client.errors import ServerUnreachable
from fastq.client.protocol import Answer, Call
from fastq.client.unreachable import CHECK_URL, CLOSED, no_answer, no_connection, reason
from fastq.client.wire import Address, Reply
from fastq.clock import monotonic_us

READ_BYTES = 64 << 10
IDLE_MAX = 64  # idle connections in the pool


class Transport(Protocol):
    """Sends the requests of a Client. Pass another implementation as `transport=`."""

    def send(self, call: Call[object], timeout_s: float) -> Answer:
        """Send one request. Raises ServerUnreachable: no answer within `timeout_s` seconds, or no connection."""

    def close(self) -> None:
        """Close idle connections now, and busy ones after their request."""


class SocketTransport:
    def __init__(self, address: Address, tls: ssl.SSLContext | None = None) -> None:
        self._address = address
        self._tls = (tls or ssl.create_default_context()) if address.is_tls else None
        self._idle: deque[socket.socket] = deque()
        self._process = os.getpid()
        self._closed = False

    def send(self, call: Call[object], timeout_s: float) -> Answer:
        deadline_us = monotonic_us() + int(timeout_s * 1e6)
        request = self._address.request(call)
        connection = self._take_idle() or self._connect(deadline_us)
        kept = False
        try:
            _set_deadline(connection, deadline_us)
            connection.sendall(request)
            reply = Reply()
            while reply.answer is None:
                _set_deadline(connection, deadline_us)
                data = connection.recv(READ_BYTES)
                if not data:
                    raise ServerUnreachable(CLOSED, sent=True, advice=CHECK_URL)
                reply.feed(data)
            kept = reply.keep_alive and not self._closed and len(self._idle) < IDLE_MAX
            return reply.answer
        except ValueError as error:
            raise ServerUnreachable(str(error), sent=True, is_final=True, advice=CHECK_URL) from error
        except TimeoutError as error:
            raise no_answer(timeout_s) from error
        except OSError as error:
            raise ServerUnreachable(f"no answer: {reason(error)}", sent=True, advice=CHECK_URL) from error
        finally:
            if kept:
                self._idle.append(connection)
            else:
                _end(connection)

    def close(self) -> None:
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                _end(self._idle.pop())

    def _take_idle(self) -> socket.socket | None:
        """The last used connection that is still open, or None."""
        if self._process != os.getpid():  # after a fork the connections belong to the parent
            self._idle.clear()
            self._process = os.getpid()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if not _is_readable(connection):
                return connection
            _end(connection)  # the server closed it, or sent bytes without a request

    def _connect(self, deadline_us: int) -> socket.socket:
        """Raises ServerUnreachable: nothing was sent."""
        try:
            plain = _connected(self._address, deadline_us)
        except OSError as error:
            raise no_connection(self._address, error) from error
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _set_deadline(plain, deadline_us)
            connection = plain
            if self._tls is not None:
                connection = self._tls.wrap_socket(plain, server_hostname=self._address.host)
            forks.keep_private(connection)
            return connection
        except OSError as error:
            plain.close()
            raise no_connection(self._address, error) from error


def _connected(address: Address, deadline_us: int) -> socket.socket:
    """A connection to the first address of the host that takes one. Raises OSError."""
    failure: OSError = OSError("the host has no address")
    for family, kind, protocol, _, place in _resolved(address, deadline_us):
        connection = socket.socket(family, kind, protocol)
        try:
            _set_deadline(connection, deadline_us)
            connection.connect(place)
            return connection
        except OSError as error:
            connection.close()
            failure = error
    raise failure


def _resolved(address: Address, deadline_us: int) -> Sequence[Any]:
    """The addresses of the host. A look-up has no timeout, so it runs in a thread. Raises OSError."""
    asked = (address.host, address.port, socket.AF_UNSPEC, socket.SOCK_STREAM)
    with contextlib.suppress(socket.gaierror):
        return socket.getaddrinfo(*asked, flags=socket.AI_NUMERICHOST)
    found: list[Sequence[Any] | OSError] = []

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(*asked))
        except (OSError, UnicodeError) as error:
            found.append(error if isinstance(error, OSError) else OSError(str(error)))

    looking = threading.Thread(target=look_up, name="fastq-lookup", daemon=True)
    looking.start()
    looking.join(max(0.0, (deadline_us - monotonic_us()) / 1e6))
    if not found:
        raise TimeoutError(f"the name {address.host} was not looked up in time")
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]


def _end(connection: socket.socket) -> None:
    forks.shut(connection)
    connection.close()


def _set_deadline(connection: socket.socket, deadline_us: int) -> None:
    left_us = deadline_us - monotonic_us()
    if left_us <= 0:
        raise TimeoutError("it timed out")
    connection.settimeout(left_us / 1e6)


def _is_readable(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
