"""Many jobs changed at once, by filter: in slices, between which other work goes on. Not atomic; it says how many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fastq import _core
from fastq._core import FINISHED
from fastq.engine import Engine
from fastq.engine.commands import Principal
from fastq.engine.documents import Group
from fastq.errors import ApiError, JobDuplicate, JobNotFound
from fastq.services.audit import ENTRY_BYTES, Audit

if TYPE_CHECKING:
    from fastq._core import JobView

SLICE_JOBS = 1_000  # changed in one record
EXAMINED_MAX = 10_000  # jobs looked at before other work gets its turn
READ_BYTES_MAX = 8 << 20  # of records that are in memory at once to be searched
WAITING = frozenset({"READY", "SCHEDULED", "RETRY"})  # what a purge removes
ACTIONS = ("cancel", "redrive", "delete")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs: those that fit everything that is given.

    Args:
        states: as shown; empty for any.
        group: empty for the queues' default groups; None for any.
        text: a part of the payload's JSON text.
        since_us: submitted then or later, Unix microseconds.
        ids: of no others than these.
    """

    states: frozenset[str] = frozenset()
    queue: str = ""
    group: str | None = None
    tag: str = ""
    text: bytes = b""
    since_us: int = 0
    ids: tuple[str, ...] | None = None

    def fits(self, view: JobView) -> bool:
        """All but the text."""
        return (
            (not self.states or view.state in self.states)
            and (not self.queue or view.queue == self.queue)
            and (self.group is None or view.group == self.group)
            and (not self.tag or self.tag in view.tags)
            and view.created_us >= self.since_us
        )


@dataclass(frozen=True, slots=True)
class Order:
    """Do one of ACTIONS to the chosen jobs.

    Args:
        said_as, target, details: what the audit calls it, if not `jobs.<action>`; a name; the filter as JSON values.
    """

    action: str
    chosen: Filter
    said_as: str = ""
    target: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def applies(self, view: JobView) -> bool:
        """Whether the job fits, and the action would change it."""
        if not self.chosen.fits(view):
            return False
        if self.action == "cancel":
            return view.state not in FINISHED and not view.cancel_requested
        return view.state == "DEAD" if self.action == "redrive" else view.state != "RUNNING"


@dataclass(frozen=True, slots=True)
class Result:
    """How many jobs fitted and could be changed when they were looked at, and how many were.

    `complete` False: the server was stopped, or had no room, before all were looked at.
    """

    matched: int = 0
    changed: int = 0
    complete: bool = True


class Bulk:
    def __init__(self, engine: Engine, audit: Audit) -> None:
        self._engine, self._audit = engine, audit
        fitting = (engine.record_bytes_max // 2 - ENTRY_BYTES) // _core.SMALL_RECORD_BYTES
        self._slice_jobs = max(1, min(SLICE_JOBS, fitting))

    async def run(self, who: Principal, order: Order, *, dry_run: bool = False) -> Result:
        """Change the jobs that fit and were submitted before it began: its owner's only, unless an admin asks.

        Raises:
            DiskFull, Overloaded: nothing was changed.
        """
        result = Result()
        entry = 0  # its number in the audit, once something has changed
        async for views in self._slices(who, order.chosen):
            views = [view for view in views if order.applies(view)]
            result = replace(result, matched=result.matched + len(views))
            try:
                if views and not dry_run:
                    with self._engine.group(len(views) * _core.SMALL_RECORD_BYTES + ENTRY_BYTES) as group:
                        result = replace(result, changed=result.changed + self._change(group, who, order, views))
                        entry = self._say(group, who, entry, order, result)
            except ApiError:
                if not result.changed:
                    raise
                return replace(result, complete=False)
            await self._engine.log_caught_up()
            if self._engine.draining:
                return replace(result, complete=False)
            await asyncio.sleep(0)
        return result

    # --- which --------------------------------------------------------------------------------------------------------

    async def _slices(self, who: Principal, chosen: Filter) -> AsyncIterator[list[JobView]]:
        """Jobs that may fit, the newest first, some at a time; perhaps none. Their payload does."""
        owner_id = None if who.is_admin else who.owner_id
        if chosen.ids is not None:
            ids = list(dict.fromkeys(chosen.ids))
            for at in range(0, len(ids), self._slice_jobs):
                views = list(self._named(ids[at : at + self._slice_jobs]))
                views = [view for view in views if owner_id in (None, view.owner_id)]
                yield await self._with_text(views, chosen.text)
            return
        wanted = _core.Filter(
            queue=chosen.queue, group=chosen.group, tag=chosen.tag, owner_id=owner_id, since_us=chosen.since_us,
            queues=who.queues,
        )  # fmt: skip
        before, more = 0, True
        while more:
            views, before = self._engine.views(wanted, before, self._slice_jobs, EXAMINED_MAX)
            more = before > 0
            yield await self._with_text(views, chosen.text)

    def _named(self, ids: Iterable[str]) -> Iterator[JobView]:
        for job_id in ids:
            try:
                yield self._engine.view(job_id)
            except JobNotFound:
                continue

    async def _with_text(self, views: list[JobView], text: bytes) -> list[JobView]:
        """Those whose payload has `text` in it."""
        if not text:
            return views
        found: list[JobView] = []
        for piece in _pieces(views):
            records = await self._engine.records([view.place for view in piece])
            found += [
                view
                for view, record in zip(piece, records, strict=True)
                if text in _core.submit_facts(record, view.job_id).payload
            ]
        return found

    # --- what ---------------------------------------------------------------------------------------------------------

    def _change(self, group: Group, who: Principal, order: Order, views: list[JobView]) -> int:
        """How many were changed: some may have moved on since they were looked at."""
        ids = [view.job_id for view in self._named(view.job_id for view in views) if order.applies(view)]
        if order.action == "delete":
            group.delete(ids)
            return len(ids)
        changed = 0
        for job_id in ids:
            try:
                if order.action == "cancel":
                    group.cancel(job_id, who.key_id)
                else:
                    group.redrive(job_id, who.key_id)
                changed += 1
            except JobDuplicate:  # another job has its unique key
                continue
        return changed

    def _say(self, group: Group, who: Principal, entry: int, order: Order, result: Result) -> int:
        """In the record of a slice what was done so far; the number of the audit's entry, 0 while there is none."""
        details = {**order.details, "matched": result.matched, "changed": result.changed}
        if entry:
            self._audit.amend(group, entry, **details)
        elif result.changed:
            return self._audit.write(group, who, order.said_as or f"jobs.{order.action}", order.target, **details)
        return entry


def _pieces(views: list[JobView]) -> Iterator[list[JobView]]:
    """In order, with records of READ_BYTES_MAX at most, or of one job."""
    piece: list[JobView] = []
    piece_bytes = 0
    for view in views:
        if piece and piece_bytes + view.place.bytes > READ_BYTES_MAX:
            yield piece
            piece, piece_bytes = [], 0
        piece.append(view)
        piece_bytes += view.place.bytes
    if piece:
        yield piece
