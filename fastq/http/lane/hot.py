"""What the hot lane answers by itself, and how: see `fastq.http.lane._lane`."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any

from fastq._core import Leased
from fastq.engine import Engine
from fastq.engine.commands import Connection, Lease, Principal
from fastq.http.lane._lane import ShortWay
from fastq.http.request_ids import RequestIds
from fastq.http.resources.jobs import Jobs, Reply
from fastq.http.resources.work import Work
from fastq.http.routes import may
from fastq.services.auth import Authenticator, Known

Handle = Callable[[Principal, str, bytes, Connection], Coroutine[Any, Any, Reply]]
"""(who, job id of the path, body, connection) -> the answer. Raises ApiError."""

JOB_ID_CHARS = 36


@dataclass(frozen=True, slots=True)
class HotRoute:
    path: str
    scope: str
    handle: Handle


class HotRoutes:
    """The hot routes, and what the lane needs of the rest of the server."""

    def __init__(self, engine: Engine, auth: Authenticator, request_ids: RequestIds, jobs: Jobs, work: Work) -> None:
        self.request_ids = request_ids
        self.charge = auth.charge
        self._commits = engine.commits
        self._auth, self._work = auth, work
        self.lease_route = HotRoute("/jobs/lease", "jobs:lease", work.do_lease)
        self._plain = {
            b"/jobs": HotRoute("/jobs", "jobs:submit", jobs.do_submit),
            b"/jobs/batch": HotRoute("/jobs/batch", "jobs:submit", jobs.do_submit_many),
            b"/jobs/lease": self.lease_route,
            b"/jobs/ack": HotRoute("/jobs/ack", "jobs:ack", work.do_ack_many),
            b"/workers/heartbeat": HotRoute("/workers/heartbeat", "jobs:ack", work.do_heartbeat),
        }
        self._of_a_job = {
            b"/ack": HotRoute("/jobs/{job_id}/ack", "jobs:ack", work.do_ack),
            b"/extend": HotRoute("/jobs/{job_id}/extend", "jobs:ack", work.do_extend),
        }
        self._always: tuple[object, bytes] = (None, b"")
        self.short_way = ShortWay(self, engine, auth, request_ids)

    def find(self, url: bytes) -> tuple[HotRoute | None, str]:
        """The route of a URL and the job id in it, if it is a hot one as it stands: no query, nothing escaped."""
        route = self._plain.get(url)
        if route is not None:
            return route, ""
        head, tail = url[: 6 + JOB_ID_CHARS], url[6 + JOB_ID_CHARS :]
        route = self._of_a_job.get(tail)
        if route is None or not head.startswith(b"/jobs/") or b"/" in head[6:] or b"%" in head or b"?" in head:
            return None, ""
        return route, head[6:].decode("latin-1")

    def known(self, authorization: str, scope: str) -> Known | None:
        """Whose key it is, if that is known without waiting and they may. Nothing is charged yet."""
        known = self._auth.look(authorization)
        return known if known is not None and may(known.principal, scope) else None

    async def deliver(self, command: Lease, many: bool, granted: list[Leased], connection: Connection) -> Reply:
        """The answer to a lease that was granted already."""
        return await self._work.deliver(command, many, granted, connection)

    def headers_always(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """What every answer begins with: made once for each list, of which there is a new one each second."""
        if headers is not self._always[0]:
            self._always = headers, b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        return self._always[1]

    def run(self, coroutine: Coroutine[Any, Any, Reply]) -> tuple[Reply | None, Awaitable[Reply] | None]:
        """Take a request as far as it goes at once: its reply, or what gives it.

        The reply may show what is not durable yet: whoever calls keeps it back until it is.
        """
        try:
            with self._commits.kept_back():
                first = coroutine.send(None)
        except StopIteration as done:
            return done.value, None
        return None, _rest(coroutine, first)


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, Reply], first: Any) -> Generator[Any, Any, Reply]:
    """What is left of a coroutine that waits for `first`."""
    sent = None
    while True:
        try:
            sent = yield first
        except BaseException as error:  # noqa: BLE001 -- a cancel too: it is the coroutine's to see
            thrown: BaseException | None = error
        else:
            thrown = None
        try:
            first = coroutine.send(sent) if thrown is None else coroutine.throw(thrown)
        except StopIteration as done:
            reply: Reply = done.value
            return reply
