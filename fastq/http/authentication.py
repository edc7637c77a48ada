"""Authentication of requests behind Falcon: of each when its head is there, and again when it takes effect."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any, Protocol

import falcon.asgi
from falcon.asgi import Request, Response

from fastq.engine.commands import Principal
from fastq.http.paths import path_of
from fastq.http.request_ids import RequestIds
from fastq.http.routes import enforce
from fastq.services.auth import Authenticator

_log = logging.getLogger("fastq.http.access")


BY_COOKIE = frozenset({"/stats", "/events"})  # what pages read in a browser, which cannot send a key along


class Pages(Protocol):
    """Pages for people, which authenticate by themselves."""

    def owns(self, path: str) -> bool:
        """Whether a request's path is one of theirs."""

    def mount(self, app: falcon.asgi.App[Any, Any]) -> None:
        """Add them to the application."""

    async def principal(self, req: Request) -> Principal | None:
        """Return the principal of a request's cookie, None without a valid one."""


class Authentication:
    """Middleware. Before a route: the request's id and its principal. After it: the id's header, and the access log."""

    def __init__(
        self, auth: Authenticator, ids: RequestIds, open_paths: frozenset[str], pages: Pages | None = None
    ) -> None:
        self._auth = auth
        self._ids = ids
        self._open_paths = open_paths
        self._pages = pages
        self.answers: Counter[tuple[str, int]] = Counter()  # by route and status class

    async def process_request(self, req: Request, _resp: Response) -> None:
        context = req.context
        context.request_id = self._ids.choose(req.get_header("X-Request-Id"))
        path, pages = path_of(req.scope), self._pages
        if path in self._open_paths or (pages is not None and pages.owns(path)):
            return
        context.auth = self._auth
        authorization = req.get_header("Authorization")
        who, context.by_cookie = None, None
        if authorization is None and pages is not None and path in BY_COOKIE and req.method == "GET":
            who = await pages.principal(req)
            context.by_cookie = pages if who is not None else None
        context.principal = who or await self._auth.principal(authorization, req.remote_addr)
        context.generation = self._auth.generation

    async def process_response(self, req: Request, resp: Response, _resource: Any, _ok: bool) -> None:
        resp.set_header("X-Request-Id", req.context.request_id)
        self.answers[req.uri_template or "(no route)", resp.status_code // 100] += 1
        if _log.isEnabledFor(logging.DEBUG):  # the template: a path may hold a key
            extra = {"request_id": req.context.request_id, "status": resp.status_code}
            _log.debug("%s %s", req.method, req.uri_template or "(no route)", extra=extra)


async def confirmed(req: Request) -> Principal:
    """Return the principal of a request that takes effect now.

    A key may be revoked, expire or lose a scope while a request waits: for its body, for room in the log, for its turn.
    Call it after each such wait. It costs a comparison if no key changed.

    Raises:
        Unauthenticated, TooManyFailures, KeyStoreUnavailable: as at the request's beginning.
        Forbidden: the key has no longer the route's scope.
    """
    context = req.context
    auth: Authenticator = context.auth
    who: Principal = context.principal
    if not auth.is_current(who, context.generation):
        by_session = await context.by_cookie.principal(req) if context.by_cookie is not None else None
        who = context.principal = by_session or await auth.principal_again(
            req.get_header("Authorization"), req.remote_addr
        )
        context.generation = auth.generation
        enforce(who, context.scope)
    return who
