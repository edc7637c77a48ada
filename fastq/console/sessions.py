"""Sessions of the console: a cookie in place of a key, from the login until 12 hours after the last use.

They are in memory: a restart ends them. A session keeps the key's secret, and each request authenticates with it, so
a session ends with its key and is limited as its key is.
"""

from __future__ import annotations

import hmac
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from falcon.asgi import Request

from fastq.engine.commands import Principal
from fastq.errors import Unauthenticated
from fastq.services.auth import Authenticator

SESSIONS_MAX = 10_000
IDLE_US = 12 * 3_600_000_000
TOKEN_BYTES = 32
NOTICES_MAX = 20  # that wait to be shown
COOKIE = "fastq_session"


@dataclass(slots=True)
class Session:
    """A session. `csrf` stands in each form; `notices` are shown on the next page."""

    secret: str = field(repr=False)
    used_us: int
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(TOKEN_BYTES), repr=False)
    notices: list[str] = field(default_factory=list)

    def has_csrf(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.csrf.encode())

    def notice(self, text: str) -> None:
        """Show a line of text on the next page."""
        self.notices = [*self.notices, text][-NOTICES_MAX:]

    def take_notices(self) -> list[str]:
        taken, self.notices = self.notices, []
        return taken


class Sessions:
    """The sessions of this server, by the digest of their token.

    Args:
        name: of the cookie. Cookies do not know ports, so two servers on one host need two names.
    """

    def __init__(self, auth: Authenticator, now_us: Callable[[], int], name: str) -> None:
        self._auth, self._now_us = auth, now_us
        self.cookie = f"{COOKIE}_{name}"
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    async def open(self, secret: str, address: str) -> tuple[str, Principal]:
        """Begin a session with a key. Return its token and the key's principal. Raises as `Authenticator.principal`."""
        who = await self._auth.principal(f"Bearer {secret}", address)
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self._sessions[_digest(token)] = Session(secret, self._now_us())
        if len(self._sessions) > SESSIONS_MAX:
            self._make_room()
        return token, who

    def _make_room(self) -> None:
        """End a session of the key with most of them, the one that was used least recently.

        A key that logs in over and over ends its own sessions, not those of others.
        """
        [(greediest, _)] = Counter(session.secret for session in self._sessions.values()).most_common(1)
        del self._sessions[next(digest for digest, one in self._sessions.items() if one.secret == greediest)]

    async def of(self, req: Request) -> tuple[Session, Principal] | None:
        """Return the session of a request's cookie and its principal; None without a valid one.

        Raises:
            RateLimited, KeyStoreUnavailable.
        """
        token = req.get_cookie_values(self.cookie)
        if not token:
            return None
        digest, now_us = _digest(token[0]), self._now_us()
        session = self._sessions.get(digest)
        if session is None:
            return None
        if now_us - session.used_us > IDLE_US:
            del self._sessions[digest]
            return None
        try:
            who = await self._auth.principal(f"Bearer {session.secret}")
        except Unauthenticated:  # revoked or expired
            self._sessions.pop(digest, None)
            return None
        session.used_us = now_us
        self._sessions.move_to_end(digest)
        return session, who

    def had(self, req: Request) -> bool:
        """Whether the browser had a session, valid or not."""
        return bool(req.get_cookie_values(self.cookie))

    async def principal(self, req: Request) -> Principal | None:
        """Return the principal of a request's cookie, None without a valid session."""
        found = await self.of(req)
        return None if found is None else found[1]

    async def principal_again(self, session: Session) -> Principal:
        """Return the principal of a session's key for work that goes on after a request. It is not counted as one.

        Raises:
            Unauthenticated, KeyStoreUnavailable.
        """
        return await self._auth.principal_again(f"Bearer {session.secret}")

    def close(self, req: Request) -> None:
        """End the session of a request's cookie."""
        for token in req.get_cookie_values(self.cookie) or ():
            self._sessions.pop(_digest(token), None)


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
