"""Puts the console together: its pages, behind the guard, as resources of the HTTP application."""

from __future__ import annotations

import asyncio
from typing import Any

import falcon.asgi

from fastq import __version__
from fastq.console import words
from fastq.console.assets import Assets
from fastq.console.cron_words import cron_words
from fastq.console.guard import Guard, Page, Visit
from fastq.console.pages.audit import AuditPages
from fastq.console.pages.failures import Failures
from fastq.console.pages.jobs import JobPages
from fastq.console.pages.keys import KeyPages
from fastq.console.pages.login import Logins
from fastq.console.pages.operations import OperationPages
from fastq.console.pages.overview import Overview
from fastq.console.pages.queues import QueuePages
from fastq.console.pages.schedules import SchedulePages
from fastq.console.pages.server import ServerPages
from fastq.console.pages.workers import WorkerPages
from fastq.console.parts import Parts
from fastq.console.render import Renderer
from fastq.console.sessions import Sessions
from fastq.engine.commands import Principal
from fastq.http.errors import MethodNotAllowed, PathNotFound
from fastq.http.routes import ADMIN, OPEN
from fastq.services.auth import Authenticator

NAV = (
    ("/", "Overview", "jobs:read"),
    ("/console/jobs", "Jobs", "jobs:read"),
    ("/console/failures", "Failures", "jobs:read"),
    ("/console/queues", "Queues", "jobs:read"),
    ("/console/workers", "Workers", "jobs:read"),
    ("/console/schedules", "Schedules", "schedules:manage"),
    ("/console/keys", "Keys", "keys:read"),
    ("/console/audit", "Audit", ADMIN),
    ("/console/server", "Server", ADMIN),
)


class Site:
    """The console of a node.

    Args:
        root_path: the path under which a proxy shows this server, without a slash at its end; empty without one.
    """

    def __init__(self, parts: Parts, auth: Authenticator, root_path: str) -> None:
        engine = parts.engine
        self.sessions = Sessions(auth, engine.now_us, engine.database_id.hex()[:8])
        assets = Assets()
        self._renderer = Renderer(
            engine.now_us, asset=assets.link, nav=NAV, version=__version__, words=words, cron_words=cron_words
        )
        self._guard = Guard(self.sessions, self._renderer, root_path)
        self._loading: asyncio.Future[None] | None = None
        self.pages: list[Page] = [
            *assets.pages(),
            *Logins(self.sessions).pages(),
            *Overview(parts).pages(),
            *JobPages(parts).pages(),
            *Failures(parts).pages(),
            *QueuePages(parts).pages(),
            *OperationPages(parts).pages(),
            *WorkerPages(parts).pages(),
            *SchedulePages(parts).pages(),
            *KeyPages(parts).pages(),
            *AuditPages(parts).pages(),
            *ServerPages(parts).pages(),
        ]

    async def principal(self, req: falcon.asgi.Request) -> Principal | None:
        """Return the principal of a request's cookie, None without a valid session."""
        return await self.sessions.principal(req)

    def owns(self, path: str) -> bool:
        """Whether a request's path is of the console, which authenticates by itself."""
        return path == "/" or path.startswith("/console/")

    def mount(self, app: falcon.asgi.App[Any, Any]) -> None:
        """Add the pages to the application."""
        for path in dict.fromkeys(page.path for page in self.pages):
            app.add_route(path, Resource([page for page in self.pages if page.path == path], self))
        app.add_sink(_responder(self, Page("GET", "", OPEN, _nothing_here)), "/console/")

    async def respond(
        self, page: Page, req: falcon.asgi.Request, resp: falcon.asgi.Response, fields: dict[str, str]
    ) -> None:
        if not self._renderer.is_loaded:
            if self._loading is None:
                self._loading = asyncio.ensure_future(asyncio.to_thread(self._renderer.load))
            await self._loading
        await self._guard.respond(page, req, resp, fields)


class Resource:
    """All methods of one page under Falcon's names."""

    def __init__(self, pages: list[Page], site: Site) -> None:
        self.allowed = sorted({page.method for page in pages} | {"HEAD"})
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            answered = "GET" if method == "HEAD" else method
            page = next((page for page in pages if page.method == answered), None)
            setattr(self, f"on_{method.lower()}", self._refuse if page is None else _responder(site, page))

    async def _refuse(self, _req: Any, _resp: Any, **_fields: str) -> None:
        raise MethodNotAllowed(self.allowed)


async def _nothing_here(_visit: Visit, **_fields: str) -> None:
    """Answer a path that is below /console/ and no page."""
    raise PathNotFound


def _responder(site: Site, page: Page) -> Any:
    async def respond(req: falcon.asgi.Request, resp: falcon.asgi.Response, **fields: str) -> None:
        await site.respond(page, req, resp, fields)

    return respond
