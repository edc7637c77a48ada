"""Changes of all jobs that match a filter, in the order of their submits.

They are made in slices, with other work between them, and not atomic.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fastq import _core
from fastq._core import FINISHED
from fastq.engine import Engine
from fastq.engine.commands import Principal, Texts
from fastq.engine.documents import Group
from fastq.engine.search import pieces, read_bytes
from fastq.errors import ApiError, JobDuplicate, JobNotFound
from fastq.services.audit import ENTRY_BYTES, Audit

if TYPE_CHECKING:
    from fastq._core import JobView

SLICE_JOBS = 100  # changed in one record
EXAMINED_MAX = 1_000  # jobs before the loop does other work
READ_BYTES_MAX = 1 << 20  # of records in memory during a search
WORK_US = 20_000_000  # of one request
CHUNKS_PER_S = 10  # of a paced change
SYNCED_JOBS = 1_000  # changed before the log catches up
WAITING = frozenset({"READY", "SCHEDULED", "RETRY"})  # the states that a purge deletes
ACTIONS = ("cancel", "redrive", "delete")

Caller = Callable[[], Awaitable[Principal]]
"""Returns who makes the request. It raises an ApiError if the key is no longer valid or may no longer do this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter(Texts):
    """A filter. A job matches if it matches every member.

    Args:
        states: empty for any.
        group: empty for the queues' default groups, None for any.
        since_us: the earliest time of the submit, Unix microseconds.
        ids: only these jobs.
    """

    states: frozenset[str] = frozenset()
    queue: str = ""
    group: str | None = None
    tag: str = ""
    since_us: int = 0
    ids: tuple[str, ...] | None = None

    def matches(self, view: JobView) -> bool:
        """Whether the job matches every member except those of `Texts`."""
        return (
            (not self.states or view.state in self.states)
            and (not self.queue or view.queue == self.queue)
            and (self.group is None or view.group == self.group)
            and (not self.tag or self.tag in view.tags)
            and view.created_us >= self.since_us
        )


@dataclass(frozen=True, slots=True)
class Order:
    """One of ACTIONS for the chosen jobs.

    Args:
        audited_as, target, details: of the audit entry: its action if not `jobs.<action>`, its target, the filter as
            JSON values.
    """

    action: str
    chosen: Filter
    audited_as: str = ""
    target: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """The one state of jobs that it changes; empty for several."""
        if self.action == "redrive":
            return "DEAD"
        return next(iter(self.chosen.states)) if len(self.chosen.states) == 1 else ""

    def applies(self, view: JobView) -> bool:
        """Whether the job matches and the action changes it."""
        if not self.chosen.matches(view):
            return False
        if self.action == "cancel":
            return view.state not in FINISHED and not view.cancel_requested
        return view.state == "DEAD" if self.action == "redrive" else view.state != "RUNNING"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a change has come, over all requests that made it.

    Args:
        after: jobs up to this number were examined.
        until: jobs from this number on are not part of it: they were submitted after it began; 0: it begins now.
        entry: the number of its audit entry; 0 before the first change.
        matched, changed: jobs so far.
    """

    after: int = 0
    until: int = 0
    entry: int = 0
    matched: int = 0
    changed: int = 0


BEGIN = Progress()


@dataclass(frozen=True, slots=True)
class Result:
    """The number of jobs that match and allow the change, and of those that were changed.

    `complete` is False if it was stopped, its time was over, the server stopped, the log was full, or the key ended
    before all jobs were examined. Then it can be continued from `progress`.
    """

    matched: int
    changed: int
    complete: bool
    progress: Progress


class Bulk:
    """Changes jobs in slices. All methods run in the event loop's thread."""

    def __init__(self, engine: Engine, audit: Audit) -> None:
        self.engine, self._audit = engine, audit
        jobs_max = (engine.record_bytes_max // 2 - ENTRY_BYTES) // _core.SMALL_RECORD_BYTES
        self.slice_jobs = max(1, min(SLICE_JOBS, jobs_max))

    async def run(
        self,
        caller: Caller,
        order: Order,
        *,
        dry_run: bool = False,
        pace_per_s: int | None = None,
        work_us: int = WORK_US,
        begin: Progress = BEGIN,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> Result:
        """Change the matching jobs that were submitted before the call, of those that the caller owns.

        Args:
            caller: asked before each change. If it raises an ApiError, the rest is not changed.
            pace_per_s: jobs that are changed in a second, at most; None: as many as can be.
            work_us: how long it works, microseconds. It changes something in any case.
            begin: where an earlier call ended.
            is_stopped: asked after each slice.
        Raises:
            DiskFull, Overloaded, and what `caller` raises: nothing was changed.
        """
        work = Work(self, caller, order, begin, dry_run=dry_run, pace_per_s=pace_per_s)
        until_us = self.engine.now_us() + work_us
        await work.step()
        while not (work.is_over or is_stopped() or self.engine.draining or self.engine.now_us() >= until_us):
            await work.step()
        return work.result

    # --- finding jobs -------------------------------------------------------------------------------------------------

    async def slices(
        self, who: Principal, order: Order, after: int, until: int
    ) -> AsyncIterator[tuple[list[JobView], int]]:
        """Yield slices of jobs whose records match, in the order of their submits. A slice may be empty.

        Args:
            after, until: of the numbers between.
        Returns:
            With each slice the number up to which jobs were examined; 0: all.
        """
        chosen = order.chosen
        if chosen.ids is not None:
            database_id = self.engine.database_id
            numbered = sorted((_core.job_number(job_id, database_id), job_id) for job_id in set(chosen.ids))
            ordered = [(number, job_id) for number, job_id in numbered if number > after]
            for at in range(0, len(ordered), self.slice_jobs):
                piece = ordered[at : at + self.slice_jobs]
                views = list(self._named(who, [job_id for _, job_id in piece]))
                is_last = at + self.slice_jobs >= len(ordered)
                yield await self._matching(views, chosen), 0 if is_last else piece[-1][0]
            return
        wanted = _core.Filter(
            order.state,
            queue=chosen.queue,
            group=chosen.group,
            tag=chosen.tag,
            since_us=chosen.since_us,
            begun=bool(chosen.worker),
            failed=bool(chosen.error or chosen.error_code),
        )
        more = True
        while more:
            views, after = self.engine.rising(who.owns, wanted, after, until, self.slice_jobs, EXAMINED_MAX)
            more = after > 0
            yield await self._matching(views, chosen), after

    def _named(self, who: Principal, ids: Iterable[str]) -> Iterator[JobView]:
        for job_id in ids:
            try:
                yield self.engine.view(who.owns, job_id)
            except JobNotFound:
                continue

    async def _matching(self, views: list[JobView], chosen: Filter) -> list[JobView]:
        """Return the jobs whose records match."""
        if not (chosen.text or chosen.of_end):
            return views
        found: list[JobView] = []
        for piece in pieces(views, lambda view: read_bytes(view, chosen), READ_BYTES_MAX):
            found += (await self.engine.matching(piece, chosen)).jobs
        return found

    # --- changing jobs ------------------------------------------------------------------------------------------------

    def change(self, group: Group, who: Principal, order: Order, views: list[JobView]) -> int:
        """Change the jobs. Return how many: some may have another state by now."""
        ids = [view.job_id for view in self._named(who, (view.job_id for view in views)) if order.applies(view)]
        if order.action == "delete":
            group.delete(who.owns, ids)
            return len(ids)
        changed = 0
        for job_id in ids:
            try:
                if order.action == "cancel":
                    group.cancel(who.owns, job_id, who.key_id)
                else:
                    group.redrive(who.owns, job_id, who.key_id)
                changed += 1
            except JobDuplicate:  # another job has its unique key
                continue
        return changed

    def write_audit(self, group: Group, who: Principal, order: Order, progress: Progress) -> int:
        """Write or amend the audit entry in the slice's record. Return its number, 0 before the first change."""
        details = {**order.details, "matched": progress.matched, "changed": progress.changed}
        action = order.audited_as or f"jobs.{order.action}"
        if progress.entry and self._audit.is_of(progress.entry, who, action, order.target):
            self._audit.amend(group, progress.entry, **details)
            return progress.entry
        return self._audit.write(group, who, action, order.target, **details) if progress.changed else 0


class Work:
    """One change by filter that goes on, from one step to the next."""

    def __init__(
        self, bulk: Bulk, caller: Caller, order: Order, begin: Progress, *, dry_run: bool, pace_per_s: int | None
    ) -> None:
        """
        Args:
            begin: where it goes on.
            pace_per_s: jobs that are changed in a second, at most; None: as many as can be.
        """
        self._bulk, self._engine, self._caller, self._order = bulk, bulk.engine, caller, order
        self._dry_run, self._pace = dry_run, pace_per_s
        self._begin = begin
        self.progress = replace(begin, until=begin.until or self._engine.next_number)
        self.is_over = self.is_complete = False
        self._slices: AsyncIterator[tuple[list[JobView], int]] | None = None
        self._views: list[JobView] = []  # of the slice, those that are still to be changed
        self._slice_after = 0
        self._begun_us = self._engine.now_us()
        self._synced = 0
        self._chunk_jobs = bulk.slice_jobs
        if pace_per_s is not None:
            self._chunk_jobs = max(1, min(bulk.slice_jobs, pace_per_s // CHUNKS_PER_S))

    @property
    def result(self) -> Result:
        matched, changed = self.progress.matched - self._begin.matched, self._changed
        return Result(matched, changed, self.is_complete, self.progress)

    @property
    def _changed(self) -> int:
        return self.progress.changed - self._begin.changed

    async def step(self) -> None:
        """Change the next jobs, then wait as the pace and the log ask for.

        Raises:
            DiskFull, Overloaded, and what the caller raises: nothing was changed yet. Later they end the work.
        """
        try:
            who = await self._caller()
            async with self._engine.turns.of(who.key_id):
                await self._change_some(who)
        except ApiError:
            if not self._changed:
                raise
            self.is_over = True
        if self._changed - self._synced >= SYNCED_JOBS:
            await self._engine.log_caught_up()
            self._synced = self._changed
        if self._pace is not None and not self.is_over:
            ahead_us = self._begun_us + self._changed * 1_000_000 // self._pace - self._engine.now_us()
            await asyncio.sleep(max(0, ahead_us) / 1e6)

    async def _change_some(self, who: Principal) -> None:
        if self._slices is None:
            self._slices = self._bulk.slices(who, self._order, self.progress.after, self.progress.until)
        if not self._views:
            found = await anext(self._slices, None)
            self._views, self._slice_after = found or ([], 0)
        chunk, rest = self._views[: self._chunk_jobs], self._views[self._chunk_jobs :]
        who = await self._caller()  # the slice may have waited for the disk
        chunk = [view for view in chunk if self._order.applies(view)]
        progress = replace(self.progress, matched=self.progress.matched + len(chunk))
        if chunk and not self._dry_run:
            with self._engine.group(len(chunk) * _core.SMALL_RECORD_BYTES + ENTRY_BYTES) as group:
                changed = self._bulk.change(group, who, self._order, chunk)
                progress = replace(progress, changed=progress.changed + changed)
                progress = replace(progress, entry=self._bulk.write_audit(group, who, self._order, progress))
        self._views = rest
        after = chunk[-1].number if rest and chunk else self.progress.after if rest else self._slice_after
        self.is_over = self.is_complete = not rest and not self._slice_after
        self.progress = replace(progress, after=after)
