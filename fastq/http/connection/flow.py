"""Flow control of a connection, its transport for answers, and its state for the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl


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


class ConnectionState:
    """Whether a connection is open: a `fastq.engine.commands.Connection`."""

    def __init__(self) -> None:
        self.is_closed = False
        self._callbacks: dict[Callable[[], None], None] = {}

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._callbacks[callback] = None
        return lambda: self._callbacks.pop(callback, None)

    def close(self) -> None:
        self.is_closed = True
        for callback in list(self._callbacks):
            callback()
