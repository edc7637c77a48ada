"""What happens, as it happens: GET /events, a stream of Server-Sent Events."""

from __future__ import annotations

from collections.abc import Callable

from falcon.asgi import Request, Response

from fastq.engine.commands import Principal
from fastq.http.authentication import confirmed
from fastq.http.connection.flow import ConnectionState
from fastq.http.errors import Failure
from fastq.http.event_streams import EventStreams
from fastq.http.routes import Answer, Route
from fastq.http.scope import CONNECTION

EVENT_STREAM = "text/event-stream"


class RequestLink:
    """A request of a stream, and its connection: see `fastq.http.event_streams.Link`."""

    def __init__(self, req: Request) -> None:
        self._req = req
        self._connection: ConnectionState | None = req.scope.get(CONNECTION)

    async def again(self) -> tuple[Principal, int]:
        who = await confirmed(self._req)
        return who, self._req.context.generation

    def on_close(self, callback: Callable[[], None]) -> None:
        if self._connection is None:
            return
        if self._connection.is_closed:
            callback()
        else:
            self._connection.on_close(callback)

    def abort(self) -> None:
        if self._connection is not None:
            self._connection.abort()


class Events:
    """The responder of GET /events."""

    def __init__(self, streams: EventStreams) -> None:
        self._streams = streams

    async def events(self, req: Request, resp: Response) -> None:
        resp.content_type = EVENT_STREAM
        resp.set_header("Cache-Control", "no-store")
        resp.set_header("X-Accel-Buffering", "no")  # nginx would hold events back
        if req.method == "HEAD":
            return
        context = req.context
        last_event_id = req.get_header("Last-Event-ID") or ""
        resp.stream = await self._streams.open(context.principal, context.generation, last_event_id, RequestLink(req))

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/events",
                "jobs:read",
                self.events,
                "Watch the figures and the changes of jobs, as Server-Sent Events",
                (
                    Answer(
                        200,
                        "events: `stats` once a second, with the members of GET /stats and the worst 10 queues; `job` "
                        "for each change of a job that the caller sees; `left_out` if there were more than 200 changes "
                        "a second, or more than 1,000 since the client's Last-Event-ID",
                        media_type=EVENT_STREAM,
                    ),
                    Answer(503, "the server is stopping, or has 1,000 streams", Failure),
                ),
                headers=("Last-Event-ID",),
            )
        ]
