"""The API as an ASGI application: the route table behind authentication, scopes and output commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import falcon
import falcon.asgi
from falcon.asgi import Request, Response

from fastq._core import Core
from fastq.engine import Engine
from fastq.engine.commits import Commits
from fastq.errors import ApiError, InvalidRequest
from fastq.http.authentication import Authentication, Pages
from fastq.http.connection.memory import MemoryLimit
from fastq.http.errors import MethodNotAllowed, on_api_error, on_defect, on_falcon_error
from fastq.http.event_streams import EventStreams
from fastq.http.lane._lane import ShortWay
from fastq.http.openapi import document
from fastq.http.output_commit import OutputCommit
from fastq.http.paths import ExactRouter
from fastq.http.request_ids import RequestIds
from fastq.http.resources.ack import Acks
from fastq.http.resources.audit import AuditRoutes
from fastq.http.resources.backups import Backups
from fastq.http.resources.bulk import BulkRoutes
from fastq.http.resources.changes import Changes
from fastq.http.resources.events import Events
from fastq.http.resources.extend import Extensions
from fastq.http.resources.failures import Failures
from fastq.http.resources.history import Histories
from fastq.http.resources.jobs import Jobs
from fastq.http.resources.keys import ApiKeys
from fastq.http.resources.lease import Leases
from fastq.http.resources.metrics import Metrics
from fastq.http.resources.progress import ProgressReports
from fastq.http.resources.queues import QueueRoutes
from fastq.http.resources.resubmit import Resubmits
from fastq.http.resources.schedules import ScheduleRoutes
from fastq.http.resources.stats import Stats
from fastq.http.resources.status import Status
from fastq.http.resources.submit import Submits
from fastq.http.resources.transactions import Transactions
from fastq.http.resources.workers import WorkerRoutes
from fastq.http.routes import OPEN, Route, check_routes, enforce
from fastq.services.audit import Audit
from fastq.services.auth import Authenticator
from fastq.services.bulk import Bulk
from fastq.services.keys import KeyStore
from fastq.services.queues import Queues
from fastq.services.schedules import Schedules
from fastq.services.statistics import Statistics

STREAMED_QUEUES_MAX = 10  # in the figures of GET /events
_METHODS = frozenset(falcon.constants.COMBINED_METHODS) - {"WEBSOCKET"}


@dataclass(frozen=True)
class HttpOptions:
    """The parts that the API needs beside the engine.

    Args:
        instance: the start of each request id that the server makes. It differs at each start, so that ids are unique.
    """

    keys: KeyStore
    queues: Queues
    schedules: Schedules
    audit: Audit
    statistics: Statistics
    instance: str = "local"


class Path:
    """All methods of one path under Falcon's names, `on_get` and so on. A method without a route is refused.

    HEAD is answered as GET without the body.
    """

    def __init__(self, routes: list[Route]) -> None:
        responders = {route.method: _guarded(route) for route in routes}
        if "GET" in responders:
            responders["HEAD"] = responders["GET"]
        self.allowed = sorted(responders)
        for method in _METHODS:
            setattr(self, f"on_{method.lower()}", responders.get(method, self._refuse))

    async def _refuse(self, _req: Request, _resp: Response, **_fields: str) -> None:
        raise MethodNotAllowed(self.allowed)


def _guarded(route: Route) -> Callable[..., Awaitable[None]]:
    """Return the route's responder with a check of its scope before it."""
    scope, responder = route.scope, route.responder
    assert scope is not None, "check_routes refuses a route without a scope"
    if scope == OPEN:
        return responder

    async def guarded(req: Request, resp: Response, **fields: str) -> None:
        req.context.scope = scope
        enforce(req.context.principal, scope)
        for name, value in fields.items():
            if not value:
                raise InvalidRequest(f"{name} is required")
        await responder(req, resp, **fields)

    return guarded


class Api(falcon.asgi.App[Request, Response]):
    """The application. `requests` and `answers` count the memory that all connections together use for either."""

    def __init__(
        self,
        routes: list[Route],
        auth: Authenticator,
        request_ids: RequestIds,
        short_way: ShortWay,
        commits: Commits,
        streams: EventStreams,
        pages: Pages | None = None,
    ) -> None:
        check_routes(routes)
        open_paths = frozenset(route.path for route in routes if route.scope == OPEN)
        authentication = Authentication(auth, request_ids, open_paths, pages)
        super().__init__(middleware=[OutputCommit(commits, open_paths), authentication], router=ExactRouter())
        self.answers_counted = authentication.answers
        self.resp_options.default_media_type = None  # type: ignore[assignment]  # empty answers have none
        self.route_table = routes
        self.request_ids = request_ids
        self.short_way = short_way
        self.requests, self.answers = MemoryLimit(), MemoryLimit()
        self.auth = auth
        self.streams = streams
        self.pages = pages
        paths = {route.path: Path([one for one in routes if one.path == route.path]) for route in routes}
        for template, path in paths.items():
            self.add_route(template, path)
        if pages is not None:
            pages.mount(self)
        self.add_error_handler(Exception, on_defect)
        self.add_error_handler(falcon.HTTPError, on_falcon_error({name: path.allowed for name, path in paths.items()}))
        self.add_error_handler(ApiError, on_api_error)

    async def __call__(  # type: ignore[override]  # as Falcon's own does
        self, scope: dict[str, Any], receive: Any, send: Any
    ) -> None:
        """Serve a request. A connection that is lost within the body is an error; Falcon sees the end of the body."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        first = True

        async def receive_whole() -> Any:
            nonlocal first
            event = await receive()
            if event["type"] == "http.disconnect" and not first:
                raise InvalidRequest("the body ended early")
            first = False
            return event

        await super().__call__(scope, receive_whole, send)


def create_app(
    engine: Engine, core: Core, auth: Authenticator, options: HttpOptions, pages: Pages | None = None
) -> Api:
    """Make the API of a started engine.

    Args:
        core: the engine's core, for the lane.
        pages: the console.
    Raises:
        StartError: check_routes refuses the table.
    """
    status = Status(engine)
    bulk = Bulk(engine, options.audit)
    stats = Stats(engine, options.statistics)
    request_ids = RequestIds(options.instance)
    short_way = ShortWay(engine, core, auth, request_ids)
    metrics = Metrics(engine, options.statistics, options.keys, options.queues, short_way)
    streams = EventStreams(engine, auth, partial(stats.shown, queues_max=STREAMED_QUEUES_MAX))
    metrics.streams = streams
    routes = [
        *status.routes(),
        *Submits(engine).routes(),
        *Jobs(engine, options.queues).routes(),
        *Histories(engine).routes(),
        *Leases(engine).routes(),
        *Acks(engine).routes(),
        *Extensions(engine).routes(),
        *ProgressReports(engine).routes(),
        *Transactions(engine).routes(),
        *Changes(engine).routes(),
        *Resubmits(engine).routes(),
        *BulkRoutes(bulk).routes(),
        *QueueRoutes(engine, options.queues, bulk).routes(),
        *ScheduleRoutes(engine, options.schedules).routes(),
        *WorkerRoutes(engine).routes(),
        *stats.routes(),
        *Events(streams).routes(),
        *metrics.routes(),
        *Failures(engine, options.statistics).routes(),
        *ApiKeys(engine, options.keys, options.audit).routes(),
        *AuditRoutes(engine, options.audit).routes(),
        *Backups(engine).routes(),
    ]
    status.document = document(routes)
    api = Api(routes, auth, request_ids, short_way, engine.commits, streams, pages)
    metrics.answers = api.answers_counted
    return api
