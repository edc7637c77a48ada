"""Output commit: an answer leaves when everything that it shows is durable.

This middleware is the only code behind Falcon that waits for the log. Responders, services and key stores do not wait.
The lane does the same with the marks in its buffer of answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from falcon.asgi import Request, Response

from fastq.engine.commits import Commits
from fastq.http.paths import path_of
from fastq.http.scope import CONNECTION


class OutputCommit:
    """Middleware that holds each answer back until it is durable.

    Errors wait too: they may show a change that is not durable. Open routes show nothing of the log and do not wait, so
    /health answers while the disk hangs. A responder that leases sets `resp.context.undo`, a function that gives the
    leases back. The middleware calls it if the client is gone.
    """

    def __init__(self, commits: Commits, open_paths: frozenset[str]) -> None:
        self._commits, self._open_paths = commits, open_paths

    async def process_response(self, req: Request, resp: Response, _resource: Any, _ok: bool) -> None:
        if path_of(req.scope) in self._open_paths:
            return
        undo = getattr(resp.context, "undo", None)
        if seq := self._commits.hidden_seq():
            try:
                await self._commits.visible(seq)
            except BaseException:
                if undo is not None:
                    undo()
                raise
        if undo is not None:
            connection = req.scope.get(CONNECTION)
            if connection is not None and connection.is_closed:
                undo()
        if resp.stream is not None:
            assert isinstance(resp.stream, AsyncIterator), "a streamed answer is an async iterator"
            if not getattr(resp.stream, "is_durable", False):  # else it shows only what is durable
                resp.stream = Pieces(self._commits, resp.stream)
        if resp.sse is not None:
            resp.sse = Pieces(self._commits, resp.sse)


class Pieces:
    """A streamed answer. Each piece leaves when what it shows is durable."""

    def __init__(self, commits: Commits, pieces: AsyncIterator[Any]) -> None:
        self._commits, self._pieces = commits, pieces

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> Any:
        piece = await anext(self._pieces)
        await self._commits.visible(self._commits.shown_seq)
        return piece

    async def close(self) -> None:
        """Close the stream. Falcon calls it after each answer, sent or not."""
        if (close := getattr(self._pieces, "close", None)) is not None:
            await close()
