"""The blocking transport: a thread-safe pool of HTTP connections."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
from collections import deque
from typing import Protocol

from fastq.client import forks
from fastq.client.errors import ServerUnreachable
from fastq.client.protocol import Answer, Call
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
        connection = self._take_idle() or self._connect(timeout_s)
        kept = False
        try:
            _set_deadline(connection, deadline_us)
            connection.sendall(request)
            reply = Reply()
            while reply.answer is None:
                _set_deadline(connection, deadline_us)
                data = connection.recv(READ_BYTES)
                if not data:
                    raise ServerUnreachable("the connection was closed before the answer", sent=True)
                reply.feed(data)
            kept = reply.keep_alive and not self._closed and len(self._idle) < IDLE_MAX
            return reply.answer
        except (OSError, ValueError) as error:
            raise ServerUnreachable(f"no answer: {error}", sent=True) from error
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

    def _connect(self, timeout_s: float) -> socket.socket:
        """Raises ServerUnreachable: nothing was sent."""
        address = self._address
        try:
            plain = socket.create_connection((address.host, address.port), timeout_s)
        except OSError as error:
            raise ServerUnreachable(f"no connection to {address.host}:{address.port}: {error}", sent=False) from error
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = plain if self._tls is None else self._tls.wrap_socket(plain, server_hostname=address.host)
            forks.keep_private(connection)
            return connection
        except OSError as error:
            plain.close()
            raise ServerUnreachable(f"no TLS with {address.host}:{address.port}: {error}", sent=False) from error


def _end(connection: socket.socket) -> None:
    forks.shut(connection)
    connection.close()


def _set_deadline(connection: socket.socket, deadline_us: int) -> None:
    left_us = deadline_us - monotonic_us()
    if left_us <= 0:
        raise TimeoutError("the request timed out")
    connection.settimeout(left_us / 1e6)


def _is_readable(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
