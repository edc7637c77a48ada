"""What stands before and after each page: the session, the scope, the form's token, the headers, errors as pages."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from falcon.asgi import Request, Response

from fastq.console.forms import Form, read_form
from fastq.console.render import Renderer
from fastq.console.sessions import Session, Sessions
from fastq.engine.commands import Principal
from fastq.errors import ApiError, Forbidden, InvalidRequest
from fastq.http.errors import headers_of, status_of
from fastq.http.paths import path_of
from fastq.http.routes import OPEN, enforce, may

_log = logging.getLogger("fastq.console")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}
HTML = "text/html; charset=utf-8"
CSRF_HEADER, CSRF_FIELD = "X-CSRF-Token", "csrf"
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+){1,8}")

Responder = Callable[..., Awaitable[None]]
"""(visit, **the path's fields)"""


@dataclass(frozen=True, slots=True)
class Page:
    """One row of the console's table. `scope` is as in `fastq.http.routes`; OPEN needs no session."""

    method: str
    path: str
    scope: str
    responder: Responder


class Visit:
    """A request of a page: who makes it, and how to answer."""

    def __init__(
        self,
        req: Request,
        resp: Response,
        renderer: Renderer,
        sessions: Sessions,
        prefix: str,
        session: Session | None = None,
        who: Principal | None = None,
    ) -> None:
        self.req, self.resp = req, resp
        self._renderer, self._sessions, self._session, self._who = renderer, sessions, session, who
        self.prefix = prefix

    @property
    def who(self) -> Principal:
        assert self._who is not None, "an open page has no principal"
        return self._who

    @property
    def is_fragment(self) -> bool:
        """Whether htmx asks for a piece of the page."""
        return self.req.get_header("HX-Request") == "true" and self.req.get_header("HX-Boosted") is None

    def may(self, scope: str) -> bool:
        return self._who is not None and may(self._who, scope)

    def caller(self, scope: str) -> Callable[[], Awaitable[Principal]]:
        """Return what says who made the visit, also when it is long over.

        It raises Unauthenticated when the key has ended, and Forbidden when it has lost the scope.
        """
        session = self._session
        assert session is not None, "an open page has no session"

        async def confirmed() -> Principal:
            who = await self._sessions.principal_again(session)
            enforce(who, scope)
            return who

        return confirmed

    def query(self, name: str) -> str:
        """Return a parameter of the URL, an empty string if it is not there."""
        found = self.req.params.get(name, "")
        return str(found[-1] if isinstance(found, list) else found).strip()

    async def form(self) -> Form:
        form: Form = self.req.context.form
        return form

    def url(self, path: str, **query: Any) -> str:
        """Return a link: the prefix of the proxy, the path, and the parameters that are neither None nor empty."""
        given = {name: value for name, value in query.items() if value not in (None, "", False)}
        return f"{self.prefix}{quote(path, safe='/')}{'?' if given else ''}{urlencode(given)}"

    def show(self, template: str, status: int = 200, **values: Any) -> None:
        """Answer with a page."""
        self.send(self.render(template, **values), status)

    def send(self, text: str, status: int = 200) -> None:
        """Answer with HTML."""
        self.resp.status = status
        self.resp.content_type = HTML
        self.resp.text = text

    def render(self, template: str, **values: Any) -> str:
        """Make a page, or a piece of one."""
        session = self._session
        return self._renderer.render(
            template,
            visit=self,
            url=self.url,
            may=self.may,
            who=self._who,
            csrf=session.csrf if session else "",
            notices=session.take_notices() if session and not self.is_fragment else [],
            path=path_of(self.req.scope),
            **values,
        )

    def show_error(self, status: int, title: str, message: str = "", **values: Any) -> None:
        """Answer with an error: a line for htmx, which shows it above the page, else a page."""
        template = "error_piece.html" if self.is_fragment else "error.html"
        self.show(template, status, title=title, message=message, **values)

    def go(self, path: str, notice: str = "", **query: Any) -> None:
        """Answer a change: go to a page, which shows the notice."""
        if notice and self._session is not None:
            self._session.notice(notice)
        target = self.url(path, **query)
        if self.is_fragment:
            self.resp.status = 204
            self.resp.set_header("HX-Redirect", target)
        else:
            self.resp.status = 303
            self.resp.set_header("Location", target)


class Guard:
    """Answers requests of pages."""

    def __init__(self, sessions: Sessions, renderer: Renderer, root_path: str) -> None:
        self._sessions, self._renderer, self._root_path = sessions, renderer, root_path

    async def respond(self, page: Page, req: Request, resp: Response, fields: dict[str, str]) -> None:
        """Answer a request of a page."""
        for name, value in HEADERS.items():
            resp.set_header(name, value)
        visit = Visit(req, resp, self._renderer, self._sessions, self._prefix(req))
        try:
            found = await self._sessions.of(req)
            if found is not None and page.method != "GET":
                await _check_form(req, found[0])
                found = await self._sessions.of(req)  # the key may have ended while the form came
            elif page.method != "GET" and page.scope == OPEN:
                await _check_form(req, None)
            if found is not None:
                visit = Visit(req, resp, self._renderer, self._sessions, visit.prefix, *found)
            elif page.scope != OPEN:
                _ask_to_log_in(visit)
                return
            if page.scope != OPEN:
                enforce(visit.who, page.scope)
            await page.responder(visit, **fields)
        except ApiError as error:
            _show_error(visit, error)
        except Exception as error:  # noqa: BLE001 -- a defect: the page names the request, the log has the reason
            request_id = req.context.request_id
            _log.error("%s %s failed", req.method, req.uri_template, exc_info=error, extra={"request_id": request_id})
            visit.show_error(500, "Something is wrong with the server", request_id=request_id)

    def _prefix(self, req: Request) -> str:
        """The path under which a proxy shows this server: of a header, else of the setting.

        It changes only this answer's links, so any client may say it.
        """
        given = (req.get_header("X-Forwarded-Prefix") or "").rstrip("/")
        return given if _PREFIX.fullmatch(given) else self._root_path


def _ask_to_log_in(visit: Visit) -> None:
    """Send the browser to the login by a page of ours.

    A cookie with SameSite=Strict does not come along when a link in another site leads here. The second request, from
    our page, has it.
    """
    req = visit.req
    if visit.is_fragment:
        visit.resp.status = 401
        visit.resp.set_header("HX-Refresh", "true")
        return
    if req.method != "GET":
        visit.show_error(401, "You are not logged in", message="The session ended. Nothing was changed.")
        return
    query = f"?{req.query_string}" if req.query_string else ""
    visit.show("to_login.html", 401, target=visit.url("/console/login", next=path_of(req.scope) + query))


async def _check_form(req: Request, session: Session | None) -> None:
    """Read the form, and check that it comes from a page of ours. Raises Forbidden."""
    if req.get_header("Sec-Fetch-Site") not in (None, "same-origin", "none"):
        raise Forbidden("the request comes from another site")
    req.context.form = form = await read_form(req)
    if session is not None and not session.has_csrf(req.get_header(CSRF_HEADER) or form.text(CSRF_FIELD)):
        raise Forbidden("the form is of another session: load the page again")


def _show_error(visit: Visit, error: ApiError) -> None:
    status = status_of(error)
    for name, value in headers_of(error).items():
        if name != "WWW-Authenticate":  # a browser would ask for a password
            visit.resp.set_header(name, value)
    titles = {403: "This key may not do that", 404: "There is nothing here", 409: "That does not go now",
              429: "Too much at once", 503: "The server does not take this now", 507: "The disk is full"}  # fmt: skip
    title = titles.get(status, "That did not work" if status < 500 else "Something is wrong with the server")
    visit.show_error(status, title, message=str(error))


def need(condition: bool, message: str) -> None:
    """Raise InvalidRequest with the message unless the condition holds."""
    if not condition:
        raise InvalidRequest(message)
