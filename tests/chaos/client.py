"""A small HTTP/1.1 client of our own: keep-alive, one request at a time, and exact about what got no answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

ENDED = (ConnectionError, asyncio.IncompleteReadError, OSError)


class NotSent(Exception):
    """There was no connection: the server has seen nothing of the request."""


class Unanswered(Exception):
    """The request went out and no whole answer came back: it may have happened."""


class Connection:
    """One connection, opened when it is needed and again after it broke."""

    def __init__(self, host: str, port: int, key: str) -> None:
        self._address = (host, port)
        self._head = f"Host: {host}:{port}\r\nAuthorization: Bearer {key}\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.waiting = False  # whether a request is out and its answer is not here

    async def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Status and decoded body; an empty body is {}. Raises NotSent, Unanswered."""
        if self._streams is None:
            try:
                self._streams = await asyncio.open_connection(*self._address)
            except ENDED as error:
                raise NotSent from error
        reader, writer = self._streams
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(content)}\r\n\r\n"
        self.waiting = True
        try:
            writer.write(head.encode() + content)
            await writer.drain()
            return await _answer(reader)
        except ENDED as error:
            self.close()
            raise Unanswered from error
        finally:
            self.waiting = False

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, Any]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    content = await reader.readexactly(int(fields["content-length"]))
    return int(head[0].split()[1]), json.loads(content) if content else {}
