"""The route table: every path, its method, who may call it, and what the document about the API says of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from fastq.engine.commands import Principal
from fastq.errors import Forbidden, StartError
from fastq.http.errors import Failure

OPEN = "open"  # no key is asked for
ADMIN = "admin"  # the key's type decides, not a scope
SCOPES = (
    "jobs:submit", "jobs:read", "jobs:lease", "jobs:ack", "keys:create", "keys:read", "keys:revoke",
    "queues:manage", "schedules:manage", "metrics:read",
)  # fmt: skip

Responder = Callable[..., Awaitable[None]]
"""(request, response, **the path's fields)"""


@dataclass(frozen=True, slots=True)
class Answer:
    """One way in which a route answers. `schema` None is an answer without JSON: `text`, or an empty body.

    A tuple of schemas: the answer is one of them. With a media type it is bytes of that type.
    """

    status: int
    meaning: str
    schema: Any = None
    text: str | None = None
    media_type: str | None = None

    @property
    def schemas(self) -> tuple[Any, ...]:
        if self.schema is None:
            return ()
        return self.schema if isinstance(self.schema, tuple) else (self.schema,)


# Answers that routes have in common. What every route with a scope can say (401, 403) is not repeated in the table.
WITH_BODY = (
    Answer(400, "the request is not what is taken here; the message names the field", Failure),
    Answer(413, "the body is too large; the message names the limit", Failure),
    Answer(415, "the body has a Content-Encoding", Failure),
)
TOO_MUCH = (Answer(503, "overloaded or stopping: nothing was changed; Retry-After says when to try again", Failure),)
BEHIND = Answer(429, "the log is being cleaned and does not keep up: nothing was changed; submit more slowly", Failure)
DISK_FULL = Answer(507, "the disk is full: nothing was changed", Failure)
CHANGES = (*WITH_BODY, *TOO_MUCH, DISK_FULL)  # what every change may be answered with
ABSENT = Answer(404, "no such job, or one of another owner", Failure)
LOST = Answer(409, "the lease is lost: it ran out, or the token is an earlier one's", Failure)
BEHIND_OR_FULL = Answer(429, f"{BEHIND.meaning}; or a depth limit, or too many idempotency keys", Failure)
KEY_USED = Answer(422, "the idempotency key came with another request before", Failure)


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table. `scope` is OPEN, ADMIN or one of SCOPES; there is no default that lets anybody in."""

    method: str
    path: str
    scope: str | None
    responder: Responder
    summary: str
    answers: tuple[Answer, ...]
    body: type[msgspec.Struct] | None = None
    body_optional: bool = False
    query: type[msgspec.Struct] | None = None  # of the parameters behind the question mark
    headers: tuple[str, ...] = ()  # those of HEADERS that it heeds
    example: Any = None  # of the body

    @property
    def path_fields(self) -> list[str]:
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]


def check_routes(routes: list[Route]) -> None:
    """Raises StartError for a route without a scope, with one that does not exist, or that is there twice."""
    seen = set()
    for route in routes:
        name = f"{route.method} {route.path}"
        if route.scope is None:
            raise StartError(f"the route {name} declares no scope")
        if route.scope not in (OPEN, ADMIN, *SCOPES):
            raise StartError(f"the route {name} declares a scope that does not exist: {route.scope}")
        if name in seen:
            raise StartError(f"the route {name} is declared twice")
        seen.add(name)


def may(who: Principal, scope: str) -> bool:
    """Whether `who` may call a route of that scope. An admin key may call everything."""
    return who.is_admin or scope in who.scopes


def enforce(who: Principal, scope: str) -> None:
    """Raises Forbidden unless `who` may call a route of that scope."""
    if not may(who, scope):
        raise Forbidden("Admin access required" if scope == ADMIN else "Insufficient permissions")
