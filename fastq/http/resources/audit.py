"""The audit log, for administrators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from falcon.asgi import Request, Response
from msgspec import Meta

from fastq.engine import Engine
from fastq.http.fields import Time
from fastq.http.long_answers import array_of, page_of
from fastq.http.queries import read_query
from fastq.http.reply import JSON, time_of
from fastq.http.routes import ADMIN, Answer, Route
from fastq.services.audit import ENTRIES_KEPT, Audit, Entry

PAGE_MAX = 1_000
SLICE_ENTRIES = 50  # of a piece of a page


class EntryShown(msgspec.Struct, forbid_unknown_fields=True):
    """An entry. `number` counts all entries since the first."""

    number: int
    at: Time
    key_id: str
    owner_id: str
    action: str
    target: str
    details: dict[str, Any]


class AuditShown(msgspec.Struct, forbid_unknown_fields=True):
    """A page of entries, the newest first. `cursor`: there are more."""

    entries: list[EntryShown]
    cursor: int | msgspec.UnsetType = msgspec.UNSET


class AuditQuery(msgspec.Struct, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = 100
    cursor: Annotated[int, Meta(ge=0, le=(1 << 63) - 1, description="From the previous page.")] = 0


def shown(entry: Entry) -> dict[str, Any]:
    return {
        "number": entry.number,
        "at": time_of(entry.at_us),
        "key_id": entry.key_id,
        "owner_id": entry.owner_id,
        "action": entry.action,
        "target": entry.target,
        "details": entry.details,
    }


class AuditRoutes:
    """The responder of GET /admin/audit."""

    def __init__(self, engine: Engine, audit: Audit) -> None:
        self._engine, self._audit = engine, audit

    async def page(self, req: Request, resp: Response) -> None:
        query = read_query(req, AuditQuery)
        found, cursor = self._audit.page(query.cursor, query.limit)

        async def slices() -> AsyncIterator[list[Any]]:
            for at in range(0, len(found), SLICE_ENTRIES):
                yield [shown(entry) for entry in found[at : at + SLICE_ENTRIES]]

        entries = await array_of(self._engine, req, slices())
        resp.content_type = JSON
        resp.data = page_of("entries", entries, cursor=cursor)

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/admin/audit",
                ADMIN,
                self.page,
                f"The last {ENTRIES_KEPT:,} changes of keys, queues, schedules, or many jobs, and who made them",
                (Answer(200, "a page of entries", AuditShown),),
                query=AuditQuery,
            )
        ]
