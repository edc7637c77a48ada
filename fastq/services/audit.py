"""The audit log: the last 10,000 changes of keys, queues, schedules and many jobs, stored in the job log."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
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
DOCUMENT_HEAD_BYTES = 640  # of a document's record: at most, without its body
ENTRY_BYTES = 4096  # the largest record of an entry: the limits of requests bound its details


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entry. Its document is JSON. A later version may add members with defaults.

    Args:
        number: counts all entries, from 1.
        at_us: Unix microseconds.
        action: the kind of object, a dot and the verb, such as `queue.put`.
        target: the name or id of the changed object; empty for many jobs.
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
class Audited:
    """The entry of a change that a key store makes: see `Audit.of_change`."""

    who: Principal
    action: str
    details: dict[str, Any]
    target: str = ""
    is_unchanged: bool = False  # no entry is written
    is_written: bool = False


_audited: ContextVar[Audited | None] = ContextVar("audited", default=None)


class Audit:
    """The audit log. Entry n is the document named n modulo ENTRIES_KEPT, so a new entry replaces the oldest one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        found = (msgspec.json.decode(body, type=Entry) for body in engine.documents(DocumentKind.AUDIT).values())
        self._entries = OrderedDict((entry.number, entry) for entry in sorted(found, key=lambda entry: entry.number))
        self._last = next(reversed(self._entries), 0)

    def write(self, group: Group, who: Principal, action: str, target: str = "", **details: Any) -> int:
        """Write an entry into the change's record, which reserves ENTRY_BYTES for it. Return the entry's number."""
        self._last += 1
        self._put(group, Entry(self._last, group.now_us, who.key_id, who.owner_id, action, target, details))
        if len(self._entries) > ENTRIES_KEPT:
            self._entries.popitem(last=False)
        return self._last

    def is_of(self, number: int, who: Principal, action: str, target: str) -> bool:
        """Whether an entry still exists and is of this key's change."""
        entry = self._entries.get(number)
        return entry is not None and (entry.key_id, entry.action, entry.target) == (who.key_id, action, target)

    def amend(self, group: Group, number: int, **details: Any) -> None:
        """Add details to an entry, if it still exists."""
        entry = self._entries.get(number)
        if entry is not None:
            self._put(group, msgspec.structs.replace(entry, details=entry.details | details))

    @contextmanager
    def of_change(self, who: Principal, action: str, **details: Any) -> Iterator[Audited]:
        """Audit a change that is made within the context.

        The entry is written into the record of the first document that `AuditedDocuments` puts. Without a document, as
        in Redis, the entry is written by itself after the change.
        """
        audited = Audited(who, action, details)
        token = _audited.set(audited)
        try:
            yield audited
        finally:
            _audited.reset(token)
        if not (audited.is_written or audited.is_unchanged):
            with self._engine.group(ENTRY_BYTES) as group:
                self.write(group, who, action, audited.target, **details)

    def page(self, before: int, limit: int) -> tuple[list[Entry], int]:
        """Return at most `limit` entries below number `before`, the newest first, and the next page's `before`.

        `before` 0 starts at the newest entry. The next page's is 0 if there are no more.
        """
        newest = min(before - 1 if before else self._last, self._last)
        oldest = next(iter(self._entries), self._last + 1)
        numbers = (number for number in range(newest, oldest - 1, -1) if number in self._entries)
        found = [self._entries[number] for number in islice(numbers, limit)]
        more = bool(found) and found[-1].number > next(iter(self._entries))
        return found, found[-1].number if more else 0

    def about(self, kind: str, target: str, limit: int) -> list[Entry]:
        """Return the last `limit` entries about an object, the newest first.

        Args:
            kind: as in their actions, such as `queue`.
        """
        found = (
            entry
            for entry in reversed(self._entries.values())
            if entry.target == target and entry.action.startswith(f"{kind}.")
        )
        return list(islice(found, limit))

    def _put(self, group: Group, entry: Entry) -> None:
        self._entries[entry.number] = entry
        name = str(entry.number % ENTRIES_KEPT)
        group.put_document(DocumentKind.AUDIT, name, msgspec.json.encode(entry), entry.key_id)


class AuditedDocuments:
    """The engine's documents for key stores, which know nothing of the audit log."""

    def __init__(self, engine: Engine, audit: Audit) -> None:
        self._engine, self._audit = engine, audit
        self.documents, self.durable, self.caught_up = engine.documents, engine.durable, engine.log_caught_up
        self.now_us = engine.now_us

    def put_document(self, kind: int, name: str, body: bytes, key_id: str = "") -> None:
        """Put a document: see `engine.documents.Documents.put`. Write the entry of `Audit.of_change` with it."""
        audited = _audited.get()
        if audited is None or audited.is_written:
            self._engine.put_document(kind, name, body, key_id)
            return
        with self._engine.group(len(body) + ENTRY_BYTES) as group:
            group.put_document(kind, name, body, key_id)
            self._audit.write(group, audited.who, audited.action, name, **audited.details)
            audited.is_written = True

    def put_documents(self, kind: int, bodies: Mapping[str, bytes], key_id: str = "") -> None:
        """Put documents, all in one record. Of a change that is audited there is one."""
        if len(bodies) == 1:
            ((name, body),) = bodies.items()
            self.put_document(kind, name, body, key_id)
        elif bodies:
            with self._engine.group(sum(map(len, bodies.values())) + DOCUMENT_HEAD_BYTES * len(bodies)) as group:
                for name, body in bodies.items():
                    group.put_document(kind, name, body, key_id)

    def drop_documents(self, kind: int, names: Sequence[str]) -> None:
        """Drop documents, all in one record."""
        with self._engine.group(DOCUMENT_HEAD_BYTES * len(names)) as group:
            for name in names:
                group.drop_document(kind, name)
