"""The route table: each path with its method, its scope, its responder, and its part of the OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from fastq.engine.commands import Principal
from fastq.errors import Forbidden, StartError
from fastq.http.errors import Failure

OPEN = "open"  # without a key
ADMIN = "admin"  # the key's type decides, not a scope
SCOPES = (
    "jobs:submit", "jobs:read", "jobs:lease", "jobs:ack", "keys:create", "keys:read", "keys:revoke",
    "queues:manage", "schedules:manage", "metrics:read",
)  # fmt: skip

Responder = Callable[..., Awaitable[None]]
"""(request, response, **the path's fields)"""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of a route.

    Args:
        schema: of its JSON body. A tuple: of one of them. None: the body is `text`, bytes of `media_type`, or empty.
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


# Answers of several routes. The answers of every route with a scope (401, 403) are in openapi.py.
WITH_BODY = (
    Answer(400, "the request is invalid; the message names the field", Failure),
    Answer(413, "the body is too large; the message names the limit", Failure),
    Answer(415, "the body has a Content-Encoding", Failure),
)
TOO_MUCH = (
    Answer(503, "the server is overloaded or stopping; nothing was changed; retry after Retry-After seconds", Failure),
)
BEHIND = Answer(429, "the log's cleaner does not keep up; nothing was changed; submit more slowly", Failure)
DISK_FULL = Answer(507, "the disk is full; nothing was changed", Failure)
CHANGES = (*WITH_BODY, *TOO_MUCH, DISK_FULL)  # the answers of every change with a body
ABSENT = Answer(404, "the job does not exist or belongs to another owner", Failure)
LOST = Answer(409, "the lease is lost: it expired, or the token is of an earlier lease", Failure)
BEHIND_OR_FULL = Answer(429, f"{BEHIND.meaning}; or a limit of jobs or idempotency keys is reached", Failure)
KEY_USED = Answer(422, "the idempotency key was used for another request", Failure)


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table. `scope` is OPEN, ADMIN or one of SCOPES. It has no default."""

    method: str
    path: str
    scope: str | None
    responder: Responder
    summary: str
    answers: tuple[Answer, ...]
    body: type[msgspec.Struct] | None = None
    body_optional: bool = False
    query: type[msgspec.Struct] | None = None
    headers: tuple[str, ...] = ()  # the headers of openapi.HEADERS that the responder reads
    example: Any = None  # a body

    @property
    def path_fields(self) -> list[str]:
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]


def check_routes(routes: list[Route]) -> None:
    """Check the table.

    Raises:
        StartError: a route has no scope or an unknown one, or is declared twice.
    """
    seen = set()
    for route in routes:
        name = f"{route.method} {route.path}"
        if route.scope is None:
            raise StartError(f"the route {name} declares no scope")
        if route.scope not in (OPEN, ADMIN, *SCOPES):
            raise StartError(f"the route {name} declares an unknown scope: {route.scope}")
        if name in seen:
            raise StartError(f"the route {name} is declared twice")
        seen.add(name)


def may(who: Principal, scope: str) -> bool:
    """Whether `who` may call a route of `scope`. An admin key may call every route."""
    return who.is_admin or scope in who.scopes


def enforce(who: Principal, scope: str) -> None:
    """Raise Forbidden unless `who` may call a route of `scope`."""
    if not may(who, scope):
        raise Forbidden("Admin access required") if scope == ADMIN else Forbidden("Insufficient permissions", scope)
