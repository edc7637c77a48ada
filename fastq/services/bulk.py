"""Changes of all jobs that match a filter, in the order of their submits.

They are made in slices, with other work between them, and not atomic.
"""

from __future__ import annotations

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

    def applies(self, view: JobView) -> bool:
        """Whether the job matches and the action changes it."""
        if not self.chosen.matches(view):
            return False
        if self.action == "cancel":
            return view.state not in FINISHED and not view.cancel_requested
        return view.state == "DEAD" if self.action == "redrive" else view.state != "RUNNING"


@dataclass(frozen=True, slots=True)
class Result:
    """The number of jobs that match and allow the change, and of those that were changed.

    `complete` is False if the server stopped, the log was full, or the key ended, before all jobs were examined.
    """

    matched: int = 0
    changed: int = 0
    complete: bool = True


@dataclass(slots=True)
class Done:
    """What was done until now. `entry` is the number of the audit entry, 0 before the first change."""

    result: Result = Result()
    entry: int = 0
    is_over: bool = False


class Bulk:
    """Changes jobs in slices. All methods run in the event loop's thread."""

    def __init__(self, engine: Engine, audit: Audit) -> None:
        self._engine, self._audit = engine, audit
        jobs_max = (engine.record_bytes_max // 2 - ENTRY_BYTES) // _core.SMALL_RECORD_BYTES
        self._slice_jobs = max(1, min(SLICE_JOBS, jobs_max))

    async def run(self, caller: Caller, order: Order, *, dry_run: bool = False) -> Result:
        """Change the matching jobs that were submitted before the call, of those that the caller owns.

        Args:
            caller: asked before each change. If it raises an ApiError, the rest is not changed.
        Raises:
            DiskFull, Overloaded, and what `caller` raises: nothing was changed.
        """
        who = await caller()
        done, slices, synced = Done(), self._slices(who, order.chosen), 0
        while not done.is_over:
            async with self._engine.turns.of(who.key_id):
                await self._change_slice(caller, order, slices, done, dry_run)
            if done.result.changed - synced >= SYNCED_JOBS:
                await self._engine.log_caught_up()
                synced = done.result.changed
            if self._engine.draining and not done.is_over:
                return replace(done.result, complete=False)
        return done.result

    async def _change_slice(
        self, caller: Caller, order: Order, slices: AsyncIterator[list[JobView]], done: Done, dry_run: bool
    ) -> None:
        """Change the jobs of the next slice."""
        views = await anext(slices, None)
        if views is None:
            done.is_over = True
            return
        try:
            who = await caller()
            views = [view for view in views if order.applies(view)]
            done.result = replace(done.result, matched=done.result.matched + len(views))
            if dry_run or not views:
                return
            with self._engine.group(len(views) * _core.SMALL_RECORD_BYTES + ENTRY_BYTES) as group:
                changed = self._change(group, who, order, views)
                done.result = replace(done.result, changed=done.result.changed + changed)
                done.entry = self._write_audit(group, who, done.entry, order, done.result)
        except ApiError:
            if not done.result.changed:
                raise
            done.result, done.is_over = replace(done.result, complete=False), True

    # --- finding jobs -------------------------------------------------------------------------------------------------

    async def _slices(self, who: Principal, chosen: Filter) -> AsyncIterator[list[JobView]]:
        """Yield slices of jobs whose payload matches, in the order of their submits. A slice may be empty."""
        if chosen.ids is not None:
            database_id = self._engine.database_id
            ids = sorted(set(chosen.ids), key=lambda job_id: _core.job_number(job_id, database_id))
            for at in range(0, len(ids), self._slice_jobs):
                views = list(self._named(who, ids[at : at + self._slice_jobs]))
                yield await self._matching(views, chosen)
            return
        wanted = _core.Filter(
            queue=chosen.queue,
            group=chosen.group,
            tag=chosen.tag,
            since_us=chosen.since_us,
            begun=bool(chosen.worker),
            failed=bool(chosen.error or chosen.error_code),
        )
        after, until, more = 0, self._engine.next_number, True
        while more:
            views, after = self._engine.rising(who.owns, wanted, after, until, self._slice_jobs, EXAMINED_MAX)
            more = after > 0
            yield await self._matching(views, chosen)

    def _named(self, who: Principal, ids: Iterable[str]) -> Iterator[JobView]:
        for job_id in ids:
            try:
                yield self._engine.view(who.owns, job_id)
            except JobNotFound:
                continue

    async def _matching(self, views: list[JobView], chosen: Filter) -> list[JobView]:
        """Return the jobs whose records match."""
        if not (chosen.text or chosen.of_end):
            return views
        found: list[JobView] = []
        for piece in pieces(views, lambda view: read_bytes(view, chosen), READ_BYTES_MAX):
            found += (await self._engine.matching(piece, chosen)).jobs
        return found

    # --- changing jobs ------------------------------------------------------------------------------------------------

    def _change(self, group: Group, who: Principal, order: Order, views: list[JobView]) -> int:
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

    def _write_audit(self, group: Group, who: Principal, entry: int, order: Order, result: Result) -> int:
        """Write or amend the audit entry in the slice's record. Return its number, 0 before the first change."""
        details = {**order.details, "matched": result.matched, "changed": result.changed}
        if entry:
            self._audit.amend(group, entry, **details)
        elif result.changed:
            return self._audit.write(group, who, order.audited_as or f"jobs.{order.action}", order.target, **details)
        return entry
