"""Log in with a key, and out."""

from __future__ import annotations

import re
from string import punctuation
from urllib.parse import quote

from fastq.console.guard import Page, Visit
from fastq.console.sessions import Sessions
from fastq.errors import ApiError, Unauthenticated
from fastq.http.errors import headers_of, status_of
from fastq.http.routes import OPEN, may

LOGIN, LOGOUT = "/console/login", "/console/logout"
READ = "jobs:read"
_NEXT = re.compile(r"/(?:console/[^\s\\]*)?(?:\?[^\s\\]*)?")
NEXT_CHARACTERS_MAX = 2_000


class Logins:
    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def ask(self, visit: Visit) -> None:
        if await self._sessions.of(visit.req) is not None:
            _go_on(visit, visit.query("next"))
            return
        message = "The session has ended. Log in again." if self._sessions.had(visit.req) else ""
        visit.show("login.html", next=visit.query("next"), message=message)

    async def log_in(self, visit: Visit) -> None:
        form = await visit.form()
        secret = form.text("key")
        try:
            if not secret.isascii() or not secret:
                raise Unauthenticated("Invalid API key")
            token, who = await self._sessions.open(secret, visit.req.remote_addr)
        except ApiError as error:
            for name, value in headers_of(error).items():
                if name != "WWW-Authenticate":
                    visit.resp.set_header(name, value)
            visit.show("login.html", status_of(error), next=form.text("next"), message=f"{error}.")
            return
        if not may(who, READ):
            message = f"This key may not read jobs: it lacks the scope {READ}."
            visit.show("login.html", 403, next=form.text("next"), message=message)
            return
        visit.resp.set_cookie(
            self._sessions.cookie,
            token,
            path=visit.prefix + "/",
            http_only=True,
            same_site="Strict",
            secure=visit.req.forwarded_scheme == "https" or visit.req.scheme == "https",
        )
        _go_on(visit, form.text("next"))

    async def log_out(self, visit: Visit) -> None:
        self._sessions.close(visit.req)
        visit.resp.unset_cookie(self._sessions.cookie, path=visit.prefix + "/", same_site="Strict")
        visit.go(LOGIN)

    def pages(self) -> list[Page]:
        return [
            Page("GET", LOGIN, OPEN, self.ask),
            Page("POST", LOGIN, OPEN, self.log_in),
            Page("POST", LOGOUT, READ, self.log_out),
        ]


def _go_on(visit: Visit, asked: str) -> None:
    """Go to the page that asked for the login, if it is one of ours."""
    path = asked if len(asked) <= NEXT_CHARACTERS_MAX and _NEXT.fullmatch(asked) else "/"
    visit.resp.status = 303
    visit.resp.set_header("Location", visit.prefix + quote(path, safe=punctuation))  # a header is ASCII
