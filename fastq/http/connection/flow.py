"""Flow control of a connection, its transport for answers, and its state for the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl

from fastq.http.connection import limits
from fastq.http.connection.memory import MemoryLimit


class Flow(FlowControl):
    """Flow control that keeps reading paused while `held`: while received data waits to be parsed."""

    held = False

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


class AnswerTransport:
    """The transport of answers. `close` is `Protocol.end`: no answer follows."""

    def __init__(self, transport: asyncio.Transport, end: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = end


class Unread:
    """Answers that the client does not read: they have a deadline, and their memory counts."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        answers: MemoryLimit,
        unread_bytes: Callable[[], int],
    ) -> None:
        """
        Args:
            answers: counts the unread answers of all connections.
        """
        self._loop, self._transport, self._answers, self._unread_bytes = loop, transport, answers, unread_bytes
        self.timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Abort the connection after UNREAD_S_MAX, unless `stop` comes before."""
        if self.timer is None:
            self.timer = self._loop.call_later(limits.UNREAD_S_MAX, self._transport.abort)

    def count(self) -> None:
        if self.timer is not None:
            self._answers.hold(self._abort, self._unread_bytes())

    def stop(self) -> None:
        self._answers.hold(self._abort, 0)
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def let_go(self) -> None:
        """Stop for good: the connection is closed."""
        self.stop()
        self._unread_bytes = int  # none

    def _abort(self) -> bool:
        self._transport.abort()
        return True


class ConnectionState:
    """Whether a connection is open: a `fastq.engine.commands.Connection`."""

    def __init__(self, abort: Callable[[], None]) -> None:
        self.is_closed = False
        self.abort = abort  # closes it at once, with what is not read
        self._callbacks: dict[Callable[[], None], None] = {}

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._callbacks[callback] = None
        return lambda: self._callbacks.pop(callback, None)

    def close(self) -> None:
        self.is_closed = True
        self.abort = _nothing
        for callback in list(self._callbacks):
            callback()


def _nothing() -> None:
    """There is no connection any more."""
