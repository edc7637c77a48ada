"""A connection as others see it: the flow of its bytes, where its answers go, and whether it is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """Reading stays paused while there is something read that has not been parsed."""

    held = False

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


class AnswersTo:
    """The transport as an answer sees it. To close it is to say that no answer follows: see `Protocol.end`."""

    def __init__(self, transport: asyncio.Transport, end: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = end


class Line:
    """The connection as the engine sees it: see `fastq.engine.commands.Connection`."""

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
