"""Who did what with keys, queues, schedules and many jobs at once: the last 10,000 of it, in the log."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import Any

import msgspec

from fastq.commands import Principal
from fastq.engine import Engine

AUDIT_DOCUMENT = 5  # the kind of the documents that entries are kept as
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


class Audit:
    """Entry n is the document named n modulo ENTRIES_KEPT: a new one takes the oldest's place, none is dropped."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        found = (msgspec.json.decode(body, type=Entry) for body in engine.documents(AUDIT_DOCUMENT).values())
        self._entries = OrderedDict((entry.number, entry) for entry in sorted(found, key=lambda entry: entry.number))
        self._last = next(reversed(self._entries), 0)

    def write(self, now_us: int, who: Principal, action: str, target: str = "", **details: Any) -> int:
        """Say it in the record that the change is in: within `Engine.together`, with ENTRY_BYTES for it. Its number."""
        self._last += 1
        self._put(now_us, Entry(self._last, now_us, who.key_id, who.owner_id, action, target, details))
        if len(self._entries) > ENTRIES_KEPT:
            self._entries.popitem(last=False)
        return self._last

    def amend(self, now_us: int, number: int, **details: Any) -> None:
        """Say more in an entry, if it is still there: within `Engine.together` too."""
        entry = self._entries.get(number)
        if entry is not None:
            self._put(now_us, msgspec.structs.replace(entry, details=entry.details | details))

    async def note(self, who: Principal, action: str, target: str = "", **details: Any) -> None:
        """Say it by itself, and return when that is durable. Raises DiskFull, Overloaded."""
        with self._engine.together(ENTRY_BYTES) as now_us:
            self.write(now_us, who, action, target, **details)
        await self._engine.settled()

    async def page(self, before: int, limit: int) -> tuple[list[Entry], int]:
        """The newest entries below number `before` (0: all), at most `limit`; and `before` of the next page, or 0."""
        numbers = (number for number in reversed(self._entries) if not before or number < before)
        found = [self._entries[number] for number in islice(numbers, limit)]
        await self._engine.settled()
        more = bool(found) and found[-1].number > next(iter(self._entries))
        return found, found[-1].number if more else 0

    def _put(self, now_us: int, entry: Entry) -> None:
        self._entries[entry.number] = entry
        name = str(entry.number % ENTRIES_KEPT)
        self._engine.core.put_document(now_us, AUDIT_DOCUMENT, name, msgspec.json.encode(entry), entry.key_id)
