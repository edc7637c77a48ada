"""Schedules: a cron expression, a time zone, and a job that is submitted whenever the expression is due.

A fire is one record of the log: the job and the schedule's new state. So a crash never repeats or skips a fire. All
schedules share one timer, set for the earliest of them.

Missed times fire one by one, the earliest of all schedules first. That is done in slices, with other work between them.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right, insort
from collections.abc import Callable
from heapq import heapify, heappop, heappush

import msgspec

from fastq._core import ALL, FINISHED
from fastq.engine import Engine
from fastq.engine.commands import DEFAULT_QUEUE, Principal, Submit
from fastq.engine.documents import DocumentKind, Group
from fastq.errors import (
    ApiError,
    CleanerBehind,
    JobNotFound,
    NameTaken,
    QueueForbidden,
    ScheduleNotFound,
    TooMany,
)
from fastq.services.alarm import Alarm
from fastq.services.audit import ENTRY_BYTES, Audit
from fastq.services.catch_up import Search
from fastq.services.cron import Times
from fastq.services.schedule import Kept, Schedule, State, are_equal, kept_of, missed_times, times_of

logger = logging.getLogger("fastq.schedules")

SCHEDULES_MAX = 10_000
JOB_BYTES_MAX = 64 << 20  # of the jobs of all schedules, which are in memory
RETRY_US = 5_000_000  # after a refused fire: a full queue, a full disk
SLICE_STEPS = 200  # before the loop does other work: times that are looked at; a fire is worth FIRE_STEPS of them
FIRE_STEPS = 10
STALE_MAX = 100  # entries of the heap
DOCUMENT_BYTES = 4096  # of a schedule without its job, and of its state


ReadJob = Callable[[bytes, int], Submit]
"""Decodes a job: (the JSON text of a body for POST /jobs, now in Unix microseconds)."""


class Schedules:
    """All schedules, and the timer that fires them. All methods run in the event loop's thread."""

    def __init__(self, engine: Engine, audit: Audit, read_job: ReadJob) -> None:
        """Read the schedules in the log. None fires before `start`."""
        self._engine, self._audit, self._read_job = engine, audit, read_job
        states = engine.documents(DocumentKind.SCHEDULE_STATE)
        self._kept: dict[str, Kept] = {}
        for name, body in engine.documents(DocumentKind.SCHEDULE).items():
            state = msgspec.json.decode(states[name], type=State) if name in states else State()
            self._kept[name] = kept_of(name, msgspec.json.decode(body, type=Schedule), state)
        self._names = sorted(self._kept)
        self._job_bytes = sum(len(kept.schedule.job) for kept in self._kept.values())
        self._due: list[tuple[int, str]] = []  # a heap; an entry that differs from `due_us` is stale
        self._alarm = Alarm(engine.now_us, self._tick)
        self._catching_up: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop

    # --- start and stop -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start firing. What is due fires when the loop goes on."""
        self._loop = asyncio.get_running_loop()
        now_us = self._engine.now_us()
        for kept in self._kept.values():
            kept.since_us = min(kept.since_us, now_us)  # the clock may have been set back before this start
            kept.due_us = kept.next_us
        self._order()
        self._arm()

    def stop(self) -> None:
        self._alarm.stop()
        if self._catching_up is not None:
            self._catching_up.cancel()

    # --- changes ------------------------------------------------------------------------------------------------------

    def put(self, who: Principal, name: str, schedule: Schedule) -> Kept:
        """Set a schedule. An equal one changes nothing. One that is paused stays paused.

        Args:
            schedule: its owner is that of `who`; its put_us and paused are ignored.
        Raises:
            InvalidRequest, TooMany, DiskFull, Overloaded.
            NameTaken: another owner has a schedule of this name.
            QueueForbidden: its jobs go to a queue that `who` is not bound to.
        """
        if who.queues is not None and not who.owns.has_queue(queue := _queue_of(schedule)):
            raise QueueForbidden(queue, "schedule jobs in")
        times = times_of(schedule)
        known = self._kept.get(name)
        if known is None and len(self._kept) >= SCHEDULES_MAX:
            raise TooMany("schedules", SCHEDULES_MAX)
        if known is not None and not _may_see(who, known.schedule):
            raise NameTaken(name)
        others_bytes = self._job_bytes - (0 if known is None else len(known.schedule.job))
        if others_bytes + len(schedule.job) > JOB_BYTES_MAX:
            raise TooMany("bytes of jobs in all schedules", JOB_BYTES_MAX)
        if known is not None:
            schedule = msgspec.structs.replace(schedule, paused=known.schedule.paused)
            if are_equal(known.schedule, schedule):
                return known
        details = {field: getattr(schedule, field) for field in ("cron", "timezone", "catch_up", "overlap")}
        if schedule.every_ms:
            details = {"every_ms": str(schedule.every_ms)} | {name: details[name] for name in ("catch_up", "overlap")}
        return self._put(who, name, schedule, times, "schedule.put", details)

    def pause(self, who: Principal, name: str) -> Kept:
        """Submit no job at the schedule's times. Raises ScheduleNotFound, DiskFull, Overloaded."""
        return self._set_paused(who, name, True, "schedule.pause")

    def resume(self, who: Principal, name: str) -> Kept:
        """Submit jobs from the next time on. Times before now are skipped. Raises as `pause`."""
        return self._set_paused(who, name, False, "schedule.resume")

    def _set_paused(self, who: Principal, name: str, paused: bool, action: str) -> Kept:
        kept = self._find(who, name)
        if kept.schedule.paused == paused:
            return kept
        return self._put(who, name, msgspec.structs.replace(kept.schedule, paused=paused), kept.times, action, {})

    def _put(
        self, who: Principal, name: str, schedule: Schedule, times: Times | None, action: str, details: dict[str, str]
    ) -> Kept:
        """Write the schedule, with effect from now on."""
        known = self._kept.get(name)
        with self._engine.group(len(schedule.job) + 2 * DOCUMENT_BYTES + ENTRY_BYTES) as group:
            schedule = msgspec.structs.replace(schedule, put_us=group.now_us)
            group.put_document(DocumentKind.SCHEDULE, name, msgspec.json.encode(schedule), who.key_id)
            self._audit.write(group, who, action, name, **details)
        kept = Kept(schedule, times, State() if known is None else known.state, group.now_us)
        if known is not None and times is None:
            kept.refusal = known.refusal  # it cannot be parsed: it never fires
        if known is None:
            insort(self._names, name)
        self._job_bytes += len(schedule.job) - (0 if known is None else len(known.schedule.job))
        self._kept[name] = kept
        self._set_due(name, kept, kept.next_us)
        return kept

    def delete(self, who: Principal, name: str) -> None:
        """Delete a schedule. Its jobs stay. Raises ScheduleNotFound, DiskFull, Overloaded."""
        self._find(who, name)
        with self._engine.group(2 * DOCUMENT_BYTES + ENTRY_BYTES) as group:
            group.drop_document(DocumentKind.SCHEDULE, name, who.key_id)
            group.drop_document(DocumentKind.SCHEDULE_STATE, name, who.key_id)
            self._audit.write(group, who, "schedule.delete", name)
        self._job_bytes -= len(self._kept.pop(name).schedule.job)
        del self._names[bisect_right(self._names, name) - 1]

    def run(self, who: Principal, name: str) -> str:
        """Submit the schedule's job now, even if the last one is unfinished. Return the job's id.

        Raises:
            ScheduleNotFound, and the errors of a submit.
        """
        kept = self._find(who, name)
        self._submit(name, kept, kept.since_us, by=who)
        return kept.state.job_id

    # --- reads --------------------------------------------------------------------------------------------------------

    def list(self, who: Principal, after: str, limit: int) -> tuple[list[tuple[str, Kept]], str]:
        """Return at most `limit` schedules that `who` may see, by name, and the next page's `after`, "" without one."""
        found: list[tuple[str, Kept]] = []
        for at in range(bisect_right(self._names, after), len(self._names)):
            name = self._names[at]
            kept = self._kept[name]
            if _may_see(who, kept.schedule):
                if len(found) == limit:
                    return found, found[-1][0]
                found.append((name, kept))
        return found, ""

    def show(self, who: Principal, name: str) -> Kept:
        """Return a schedule. Raises ScheduleNotFound."""
        return self._find(who, name)

    def _find(self, who: Principal, name: str) -> Kept:
        kept = self._kept.get(name)
        if kept is None or not _may_see(who, kept.schedule):
            raise ScheduleNotFound(name)
        return kept

    # --- firing -------------------------------------------------------------------------------------------------------

    @property
    def due_us(self) -> int | None:
        """When a schedule may fire next, Unix microseconds."""
        return self._due[0][0] if self._due else None

    async def fire_due(self) -> None:
        """Fire all that is due. Tests call it after they move the clock, which the loop's timer ignores."""
        self._tick()
        if self._catching_up is not None:
            await self._catching_up

    def _push_due(self, name: str, kept: Kept, due_us: int | None) -> None:
        kept.due_us = due_us
        if due_us is not None:
            heappush(self._due, (due_us, name))

    def _set_due(self, name: str, kept: Kept, due_us: int | None) -> None:
        self._push_due(name, kept, due_us)
        if len(self._due) > 2 * len(self._kept) + STALE_MAX:  # most entries are stale
            self._order()
        self._arm()

    def _order(self) -> None:
        self._due = [(kept.due_us, name) for name, kept in self._kept.items() if kept.due_us is not None]
        heapify(self._due)

    def _arm(self) -> None:
        """Set the alarm for the earliest schedule."""
        is_off = not self._due or self._engine.draining or self._catching_up is not None
        self._alarm.set(None if is_off else self._due[0][0])

    def _tick(self) -> None:
        """Fire what is due, a slice of it. A task does the rest."""
        if self._catching_up is not None:
            return
        if self._fire_slice():
            self._catching_up = self._loop.create_task(self._catch_up())
        self._arm()

    async def _catch_up(self) -> None:
        """Fire what is due, in slices. Each is durable before the next one: the log keeps room for other work."""
        more = True
        while more:
            await self._engine.log_caught_up()
            async with self._engine.turns.of("schedules"):
                more = self._fire_slice()
        self._catching_up = None
        self._arm()

    def _fire_slice(self) -> bool:
        """Fire what is due, the earliest time first. Returns whether more is due."""
        now_us, left = self._engine.now_us(), SLICE_STEPS
        while self._due and self._due[0][0] <= now_us and not self._engine.draining:
            if left <= 0:
                return True
            due_us, name = heappop(self._due)
            kept = self._kept.get(name)
            left -= 1
            if kept is not None and kept.times is not None and kept.due_us == due_us:
                left -= self._go_on(name, kept, kept.times, now_us, left)
        return False

    def _go_on(self, name: str, kept: Kept, times: Times, now_us: int, steps: int) -> int:
        """Fire the schedule's next time, or search it. Returns how many steps that took; the heap has its next one."""
        refusal = ""
        try:
            if kept.fire_us is None:
                taken = self._search(name, kept, times, now_us, max(1, steps))
            else:
                taken = FIRE_STEPS
                self._fire(name, kept, times, kept.fire_us, now_us)
        except ApiError as error:
            refusal, taken = str(error), FIRE_STEPS
            kept.search = kept.fire_us = None
            if refusal != kept.refusal:
                logger.warning("schedule %s did not fire and is tried again: %s", name, refusal)
            self._push_due(name, kept, now_us + RETRY_US)
        kept.refusal = refusal
        return taken

    def _search(self, name: str, kept: Kept, times: Times, now_us: int, steps: int) -> int:
        """Search the first time that fires. Returns how many steps that took."""
        if kept.search is None:
            kept.search = Search(times, kept.since_us, now_us, kept.schedule.catch_up, kept.schedule.catch_up_max)
        search = kept.search
        taken = search.go(steps)
        if not search.is_over:
            assert kept.due_us is not None
            self._push_due(name, kept, kept.due_us)
            return taken
        kept.missed = 0
        if search.last_us > kept.since_us and kept.due_us != search.first_us:
            until_us = search.last_us if search.first_us is None else search.first_us - 1
            kept.missed = missed_times(times, kept.since_us, until_us)
            taken += kept.missed
        kept.search, kept.fire_us = None, search.first_us
        if search.first_us is None and search.last_us > kept.since_us:
            self._skip(name, kept, search.last_us)
        self._push_due(name, kept, kept.next_us if search.first_us is None else search.first_us)
        return taken

    def _fire(self, name: str, kept: Kept, times: Times, fire_us: int, now_us: int) -> None:
        """Fire one time. If it may not overlap, skip all that is due now."""
        if kept.schedule.overlap == "skip" and self._is_unfinished(kept.state.job_id, now_us):
            self._skip(name, kept, max(fire_us, next(times.until(now_us), fire_us)))
        else:
            self._submit(name, kept, fire_us)
        next_us = kept.next_us
        kept.fire_us = next_us if next_us is not None and next_us <= now_us else None
        self._push_due(name, kept, next_us)

    def _is_unfinished(self, job_id: str, now_us: int) -> bool:
        """Whether a job runs or will run: one that waits past its expires_at will not."""
        if not job_id:
            return False
        try:
            view = self._engine.view(ALL, job_id)
        except JobNotFound:
            return False
        return view.state == "RUNNING" or (view.state not in FINISHED and not 0 < view.expires_us <= now_us)

    # --- records ------------------------------------------------------------------------------------------------------

    def _submit(self, name: str, kept: Kept, seen_us: int, by: Principal | None = None) -> None:
        """Write the job and the schedule's state as one record. Raises the errors of a submit; then nothing changed."""
        schedule = kept.schedule
        if self._engine.cleaner.is_behind:
            raise CleanerBehind
        record_bytes = len(schedule.job) + DOCUMENT_BYTES + ENTRY_BYTES
        with self._engine.group(record_bytes, spare_segments=1) as group:
            command = self._read_job(bytes(schedule.job), group.now_us)
            job_id, _ = group.submit(command, schedule.owner_id, schedule.key_id)
            state = State(seen_us, group.now_us, job_id, kept.state.passed, kept.state.missed + kept.missed)
            _put_state(group, name, state)
            if by is not None:
                self._audit.write(group, by, "schedule.run", name, job_id=job_id)
        kept.state, kept.since_us, kept.missed = state, seen_us, 0

    def _skip(self, name: str, kept: Kept, seen_us: int) -> None:
        with self._engine.group(DOCUMENT_BYTES) as group:
            state = msgspec.structs.replace(kept.state, seen_us=seen_us, passed=kept.state.passed + 1)
            state = msgspec.structs.replace(state, missed=state.missed + kept.missed)
            _put_state(group, name, state)
        kept.state, kept.since_us, kept.missed = state, seen_us, 0


def _put_state(group: Group, name: str, state: State) -> None:
    group.put_document(DocumentKind.SCHEDULE_STATE, name, msgspec.json.encode(state))


def _may_see(who: Principal, schedule: Schedule) -> bool:
    """Whether the schedule exists for `who`: its jobs do."""
    return who.owns.has(schedule.owner_id, "" if who.queues is None else _queue_of(schedule))


class _Into(msgspec.Struct):
    queue: str | None = None


def _queue_of(schedule: Schedule) -> str:
    return msgspec.json.decode(schedule.job, type=_Into).queue or DEFAULT_QUEUE
