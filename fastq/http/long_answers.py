"""Answers with long lists. They are made in slices, one slice of all answers in each turn of the event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from falcon.asgi import Request

from fastq.engine import Engine
from fastq.errors import InvalidRequest
from fastq.http.authentication import confirmed
from fastq.http.reply import encode
from fastq.http.scope import CONNECTION


async def array_of(engine: Engine, req: Request, slices: AsyncIterator[list[Any]]) -> bytes:
    """Encode the items of all slices as one JSON array. Each slice should take about a millisecond.

    Before each slice the connection and the key are checked: others made theirs meanwhile.

    Raises:
        InvalidRequest: the connection has closed. Nobody sees that.
        Unauthenticated, Forbidden: see `confirmed`.
    """
    connection = req.scope.get(CONNECTION)
    parts: list[bytes] = []
    async with engine.turns.of(req.context.principal.key_id) as turn:
        while True:
            if connection is not None and connection.is_closed:
                raise InvalidRequest("the connection has closed")
            await confirmed(req)
            items = await anext(slices, None)
            if items is None:
                return b"[" + b",".join(parts) + b"]"
            if items:
                parts.append(encode(items)[1:-1])
            await turn.pause()


def page_of(name: str, array: bytes, **more: str | int | datetime) -> bytes:
    """Make an object with a JSON array under `name`, and those of `more` that are neither empty nor 0."""
    members = b"".join(b',"%s":%s' % (member.encode(), encode(value)) for member, value in more.items() if value)
    return b'{"%s":%s%s}' % (name.encode(), array, members)
