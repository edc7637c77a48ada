"""Sends requests over sockets that block, on connections that are kept. Safe to use from several threads."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
from collections import deque
from typing import Protocol

from fastq.client.errors import ServerUnreachable
from fastq.client.protocol import Answer, Call
from fastq.client.wire import Address, Reply
from fastq.clock import monotonic_us

READ_BYTES = 64 << 10
IDLE_MAX = 64  # connections kept for later


class Transport(Protocol):
    """What a Client sends with; another one is given to it as `transport=`."""

    def send(self, call: Call[object], timeout_s: float) -> Answer:
        """Raises ServerUnreachable if no answer has come when the time is over, or none can come."""

    def close(self) -> None:
        """Close what is idle, and what is under way when it ends."""


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
        connection = self._kept() or self._connect(timeout_s)
        kept = False
        try:
            _give_until(connection, deadline_us)
            connection.sendall(request)
            reply = Reply()
            while reply.answer is None:
                _give_until(connection, deadline_us)
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
                connection.close()

    def close(self) -> None:
        self._closed = True
        self._forget_idle()

    def _forget_idle(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _kept(self) -> socket.socket | None:
        """A connection that is still good, the last used first."""
        if self._process != os.getpid():  # what was open before a fork belongs to the parent
            self._forget_idle()
            self._process = os.getpid()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if not _is_readable(connection):
                return connection
            connection.close()  # the server closed it, or said what nobody asked for

    def _connect(self, timeout_s: float) -> socket.socket:
        """Raises ServerUnreachable: nothing was sent."""
        address = self._address
        try:
            plain = socket.create_connection((address.host, address.port), timeout_s)
        except OSError as error:
            raise ServerUnreachable(f"no connection to {address.host}:{address.port}: {error}", sent=False) from error
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return plain if self._tls is None else self._tls.wrap_socket(plain, server_hostname=address.host)
        except OSError as error:
            plain.close()
            raise ServerUnreachable(f"no TLS with {address.host}:{address.port}: {error}", sent=False) from error


def _give_until(connection: socket.socket, deadline_us: int) -> None:
    left_us = deadline_us - monotonic_us()
    if left_us <= 0:
        raise TimeoutError("the time is over")
    connection.settimeout(left_us / 1e6)


def _is_readable(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
