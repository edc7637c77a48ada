"""Bytes to and from a server, for tests: nothing is corrected or completed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 20.0  # for an answer; a test that waits so long has failed


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        message: str = self.json["error"]
        return message


def request_bytes(
    method: str, path: str, headers: Sequence[tuple[str, str]] = (), body: bytes | None = None, host: str = "test"
) -> bytes:
    """A well-formed request. A body of None sends neither body nor length."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers)]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int) -> Wire:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def reply(self, head_only: bool = False) -> Reply:
        """The next answer. `head_only`: it answers a HEAD. Of a stream of events only the head is read."""
        async with asyncio.timeout(PATIENCE_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status_line, *lines = head.rstrip("\r\n").split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            status = int(status_line.split(" ")[1])
            no_body = head_only or status in (100, 204) or headers.get("content-type") == "text/event-stream"
            length = 0 if no_body else int(headers["content-length"])
            return Reply(status, headers, await self._reader.readexactly(length))

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._reader.read()

    async def closed(self) -> bool:
        """Whether the server closes without another byte."""
        return await self.rest() == b""

    async def pour(self, piece: bytes, times: int, pause_s: float = 0) -> bool:
        """Send the same over and over; whether the server broke the connection meanwhile."""
        try:
            for _ in range(times):
                await self.send(piece)
                await asyncio.sleep(pause_s)
        except ConnectionError:
            return True
        return False

    def half_close(self) -> None:
        self._writer.write_eof()

    def abort(self) -> None:
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
