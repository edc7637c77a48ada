"""Who did what with keys, queues, schedules and many jobs at once: the last 10,000 of it, in the log."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

from fastq.engine import Engine
from fastq.engine.commands import Principal
from fastq.engine.documents import DocumentKind, Group

ENTRIES_KEPT = 10_000
ENTRY_BYTES = 4096  # what the log needs for one; details are small by what they are made of


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Its document is JSON. A later version may add members that have defaults.

    Args:
        number: counts all that were ever written, from 1.
        at_us: Unix microseconds.
        action: `queue.put` and the like: what kind of thing, a dot, what was done to it.
        target: the name or id of what was changed; empty for many jobs.
        details: JSON values.
    """

    number: int
    at_us: int
    key_id: str
    owner_id: str
    action: str
    target: str = ""
    details: dict[str, Any] = {}


@dataclass
class Saying:
    """What is to be said of a change that somebody else makes: see `Audit.saying`."""

    who: Principal
    action: str
    details: dict[str, Any]
    target: str = ""
    nothing: bool = False  # nothing has changed
    is_said: bool = False


_saying: ContextVar[Saying | None] = ContextVar("saying", default=None)


class Audit:
    """Entry n is the document named n modulo ENTRIES_KEPT: a new one takes the oldest's place, none is dropped."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        found = (msgspec.json.decode(body, type=Entry) for body in engine.documents(DocumentKind.AUDIT).values())
        self._entries = OrderedDict((entry.number, entry) for entry in sorted(found, key=lambda entry: entry.number))
        self._last = next(reversed(self._entries), 0)

    def write(self, group: Group, who: Principal, action: str, target: str = "", **details: Any) -> int:
        """Say it in the record that the change is in, which has ENTRY_BYTES for it; the entry's number."""
        self._last += 1
        self._put(group, Entry(self._last, group.now_us, who.key_id, who.owner_id, action, target, details))
        if len(self._entries) > ENTRIES_KEPT:
            self._entries.popitem(last=False)
        return self._last

    def amend(self, group: Group, number: int, **details: Any) -> None:
        """Say more in an entry, if it is still there."""
        entry = self._entries.get(number)
        if entry is not None:
            self._put(group, msgspec.structs.replace(entry, details=entry.details | details))

    @contextmanager
    def saying(self, who: Principal, action: str, **details: Any) -> Iterator[Saying]:
        """Say it of what is changed within: in the record of the first document that `AuditedDocuments` is given.

        If there was none, since what changed is kept elsewhere, it is said afterwards, by itself.
        """
        said = Saying(who, action, details)
        token = _saying.set(said)
        try:
            yield said
        finally:
            _saying.reset(token)
        if not (said.is_said or said.nothing):
            with self._engine.group(ENTRY_BYTES) as group:
                self.write(group, who, action, said.target, **details)

    def page(self, before: int, limit: int) -> tuple[list[Entry], int]:
        """The newest entries below number `before` (0: all), at most `limit`; and `before` of the next page, or 0."""
        numbers = (number for number in reversed(self._entries) if not before or number < before)
        found = [self._entries[number] for number in islice(numbers, limit)]
        more = bool(found) and found[-1].number > next(iter(self._entries))
        return found, found[-1].number if more else 0

    def _put(self, group: Group, entry: Entry) -> None:
        self._entries[entry.number] = entry
        name = str(entry.number % ENTRIES_KEPT)
        group.put_document(DocumentKind.AUDIT, name, msgspec.json.encode(entry), entry.key_id)


class AuditedDocuments:
    """The engine's documents for those who know nothing of the audit: keys."""

    def __init__(self, engine: Engine, audit: Audit) -> None:
        self._engine, self._audit = engine, audit
        self.documents, self.durable = engine.documents, engine.durable
        self.now_us = engine.now_us

    def put_document(self, kind: int, name: str, body: bytes, key_id: str = "") -> None:
        """See `engine.documents.Documents.put`."""
        said = _saying.get()
        if said is None or said.is_said:
            self._engine.put_document(kind, name, body, key_id)
            return
        with self._engine.group(len(body) + ENTRY_BYTES) as group:
            group.put_document(kind, name, body, key_id)
            self._audit.write(group, said.who, said.action, name, **said.details)
            said.is_said = True
