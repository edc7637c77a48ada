"""Back up the running server."""

from __future__ import annotations

from falcon.asgi import Request, Response

from fastq.engine import Engine
from fastq.engine.commands import Connection
from fastq.http.errors import Failure
from fastq.http.routes import ADMIN, Answer, Route
from fastq.http.scope import CONNECTION
from fastq.log.protocol import Backup

ARCHIVE = "application/x-tar"


class Body:
    """The archive as an answer's body. It ends early if the client disconnects."""

    def __init__(self, backup: Backup, connection: Connection | None) -> None:
        self._backup, self._connection = backup, connection

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        if self._connection is not None and self._connection.is_closed:
            raise StopAsyncIteration
        return await self._backup.__anext__()

    async def close(self) -> None:
        """Close the backup. Falcon calls it after each answer, complete or not."""
        await self._backup.close()


class Backups:
    """The responder of POST /admin/backup."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def backup(self, req: Request, resp: Response) -> None:
        resp.stream = Body(self._engine.backup(), req.scope.get(CONNECTION))
        resp.content_type = ARCHIVE
        resp.set_header("Cache-Control", "no-store")

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/admin/backup",
                ADMIN,
                self.backup,
                "Back up everything that is on stable storage, as a tar archive",
                (
                    Answer(200, "the archive; an answer that ends early is not a backup", media_type=ARCHIVE),
                    Answer(409, "another backup is running, or the log is not in files", Failure),
                    Answer(503, "the server is stopping", Failure),
                ),
            )
        ]
