"""Output commit: an answer leaves when everything that it may show is durable, and not before.

It is the only place of the way through Falcon that waits for the log: responders, services and key stores do not. The
hot lane does the same with marks in its text of answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from falcon.asgi import Request, Response

from fastq.engine.commits import Commits
from fastq.http.scope import CONNECTION


class OutputCommit:
    """Middleware: refusals and errors wait too, since they may show a change that is not durable.

    Routes that ask for no key show nothing of the log and do not wait: a server whose disk hangs is alive. A responder
    whose answer is a promise (a lease) leaves in `resp.context.undo` what takes it back if nobody is there to get it.
    """

    def __init__(self, commits: Commits, open_paths: frozenset[str]) -> None:
        self._commits, self._open_paths = commits, open_paths

    async def process_response(self, req: Request, resp: Response, _resource: Any, _ok: bool) -> None:
        if req.path in self._open_paths:
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
            assert isinstance(resp.stream, AsyncIterator), "an answer is streamed piece by piece"
            resp.stream = Pieces(self._commits, resp.stream)
        if resp.sse is not None:
            resp.sse = Pieces(self._commits, resp.sse)


class Pieces:
    """A streamed answer: each piece waits for what it may show."""

    def __init__(self, commits: Commits, pieces: AsyncIterator[Any]) -> None:
        self._commits, self._pieces = commits, pieces

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> Any:
        piece = await anext(self._pieces)
        await self._commits.visible(self._commits.shown_seq)
        return piece

    async def close(self) -> None:
        """Falcon calls it, whatever happened."""
        if (close := getattr(self._pieces, "close", None)) is not None:
            await close()
