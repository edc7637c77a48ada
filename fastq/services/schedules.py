"""Schedules: a cron expression, a time zone, and a job that is submitted whenever the expression is due.

A fire is one record of the log: the job and the schedule's new state. So a crash never repeats or skips a fire. All
schedules share one timer, set for the earliest of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import islice, takewhile

import msgspec

from fastq._core import ALL, FINISHED
from fastq.engine import Engine
from fastq.engine.commands import DEFAULT_QUEUE, Principal, Submit
from fastq.engine.documents import DocumentKind, Group
from fastq.errors import (
    ApiError,
    CleanerBehind,
    InvalidRequest,
    JobNotFound,
    NameTaken,
    QueueForbidden,
    ScheduleNotFound,
    TooMany,
)
from fastq.services.audit import ENTRY_BYTES, Audit
from fastq.services.cron import Cron

logger = logging.getLogger("fastq.schedules")

SCHEDULES_MAX = 10_000
JOB_BYTES_MAX = 64 << 20  # of the jobs of all schedules, which are in memory
CATCH_UP_MAX = 1_000  # missed times of one schedule
CATCH_UP_DEFAULT = 100
MISSED_US = 60_000_000  # a time that is late by this much was missed; a quick restart misses none
RETRY_US = 5_000_000  # after a refused fire: a full queue, a full disk
FIRES_MAX = 100  # schedules before the loop does other work
DOCUMENT_BYTES = 4096  # of a schedule without its job, and of its state
CLOCK_PULL = 1.1  # the clock runs at most this much faster than the timer: see fastq.clock
NEAR_US = 1_000_000  # below it the difference does not matter


class Schedule(msgspec.Struct, frozen=True, omit_defaults=True):
    """A schedule. Its document is JSON under its name. A later version may add members with defaults.

    Args:
        job: the unchanged JSON of a job for POST /jobs.
        owner_id, key_id: the owner of the jobs, and the key that put the schedule.
        put_us: when it was put; it does not fire for earlier times.
        catch_up: what happens to missed times: `skip`, `one` (one job for all of them), `all` (a job for each of the
            last `catch_up_max`).
        overlap: what happens while the last job is unfinished: `skip` skips the time, `allow` submits another job.
        paused: it is not due. A resume sets put_us, so the times before it never fire.
    """

    cron: str
    timezone: str
    job: msgspec.Raw
    owner_id: str
    key_id: str
    put_us: int
    catch_up: str = "one"
    catch_up_max: int = CATCH_UP_DEFAULT
    overlap: str = "skip"
    paused: bool = False


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a schedule; JSON under its name.

    Args:
        seen_us: times up to this one have fired or were skipped.
        fired_us, job_id: the last submit and its job; 0 and empty before the first one.
        passed: the number of skipped times.
    """

    seen_us: int = 0
    fired_us: int = 0
    job_id: str = ""
    passed: int = 0


@dataclass
class Kept:
    """A schedule in memory.

    Args:
        cron: None if this version or its time zones cannot parse it; `refusal` has the error.
        since_us: times up to this one have fired or were skipped.
        due_us: None if it is never due again.
        refusal: the error of the last fire, empty if it succeeded.
    """

    schedule: Schedule
    cron: Cron | None
    state: State
    since_us: int
    due_us: int | None = None
    refusal: str = ""

    @property
    def next_us(self) -> int | None:
        return None if self.cron is None or self.schedule.paused else self.cron.after(self.since_us)


ReadJob = Callable[[bytes, int], Submit]
"""Decodes a job: (the JSON text of a body for POST /jobs, now in Unix microseconds)."""


def times_to_fire(schedule: Schedule, cron: Cron, since_us: int, now_us: int) -> tuple[list[int], int]:
    """Return the times after `since_us` up to now that fire, in order, and the latest due time, `since_us` without one.

    Times that are late by less than MISSED_US are not missed.
    """
    due = takewhile(lambda due_us: due_us > since_us, cron.until(now_us))
    latest = list(islice(due, schedule.catch_up_max if schedule.catch_up == "all" else 1))
    if not latest:
        return [], since_us
    if schedule.catch_up == "skip" and now_us - latest[0] >= MISSED_US:
        return [], latest[0]
    return latest[::-1], latest[0]


class Schedules:
    """All schedules, and the timer that fires them. All methods run in the event loop's thread."""

    def __init__(self, engine: Engine, audit: Audit, read_job: ReadJob) -> None:
        """Read the schedules in the log. None fires before `start`."""
        self._engine, self._audit, self._read_job = engine, audit, read_job
        states = engine.documents(DocumentKind.SCHEDULE_STATE)
        self._kept: dict[str, Kept] = {}
        for name, body in engine.documents(DocumentKind.SCHEDULE).items():
            state = msgspec.json.decode(states[name], type=State) if name in states else State()
            self._kept[name] = _kept(name, msgspec.json.decode(body, type=Schedule), state)
        self._due: list[tuple[int, str]] = []  # a heap; an entry that differs from `due_us` is stale
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop

    # --- start and stop -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start firing, first the schedules that are due."""
        self._loop = asyncio.get_running_loop()
        now_us = self._engine.now_us()
        for kept in self._kept.values():
            kept.since_us = min(kept.since_us, now_us)  # the clock may have been set back before this start
            kept.due_us = kept.next_us
        self._order()
        self._tick()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

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
        cron = Cron(schedule.cron, schedule.timezone)
        known = self._kept.get(name)
        if known is None and len(self._kept) >= SCHEDULES_MAX:
            raise TooMany("schedules", SCHEDULES_MAX)
        if known is not None and not _may_see(who, known.schedule):
            raise NameTaken(name)
        others_bytes = sum(len(kept.schedule.job) for other, kept in self._kept.items() if other != name)
        if others_bytes + len(schedule.job) > JOB_BYTES_MAX:
            raise TooMany("bytes of jobs in all schedules", JOB_BYTES_MAX)
        if known is not None:
            schedule = msgspec.structs.replace(schedule, paused=known.schedule.paused)
            if _are_equal(known.schedule, schedule):
                return known
        details = {"cron": schedule.cron, "timezone": schedule.timezone, "catch_up": schedule.catch_up,
                   "overlap": schedule.overlap}  # fmt: skip
        return self._put(who, name, schedule, cron, "schedule.put", details)

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
        return self._put(who, name, msgspec.structs.replace(kept.schedule, paused=paused), kept.cron, action, {})

    def _put(
        self,
        who: Principal,
        name: str,
        schedule: Schedule,
        cron: Cron | None,
        action: str,
        details: dict[str, str],
    ) -> Kept:
        """Write the schedule, with effect from now on."""
        known = self._kept.get(name)
        with self._engine.group(len(schedule.job) + 2 * DOCUMENT_BYTES + ENTRY_BYTES) as group:
            schedule = msgspec.structs.replace(schedule, put_us=group.now_us)
            group.put_document(DocumentKind.SCHEDULE, name, msgspec.json.encode(schedule), who.key_id)
            self._audit.write(group, who, action, name, **details)
        kept = Kept(schedule, cron, State() if known is None else known.state, group.now_us)
        if known is not None and cron is None:
            kept.refusal = known.refusal  # it cannot be parsed: it never fires
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
        del self._kept[name]

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
        names = sorted(name for name, kept in self._kept.items() if name > after and _may_see(who, kept.schedule))
        found = [(name, self._kept[name]) for name in names[:limit]]
        return found, names[limit - 1] if len(names) > limit else ""

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

    def look(self) -> None:
        """Fire the schedules that are due. Tests call it after they move the clock, which the loop's timer ignores."""
        self._tick()

    def _set_due(self, name: str, kept: Kept, due_us: int | None) -> None:
        kept.due_us = due_us
        if due_us is not None:
            heappush(self._due, (due_us, name))
        if len(self._due) > 2 * len(self._kept) + FIRES_MAX:  # most entries are stale
            self._order()
        self._arm()

    def _order(self) -> None:
        self._due = [(kept.due_us, name) for name, kept in self._kept.items() if kept.due_us is not None]
        heapify(self._due)

    def _arm(self) -> None:
        """Set the timer for the earliest schedule.

        The clock may run faster than the timer, so the timer for a later time ends early and is set again.
        """
        self.stop()
        self._timer = None
        if not self._due or self._engine.draining:
            return
        wait_us = float(self._due[0][0] - self._engine.now_us())
        if wait_us > NEAR_US:
            wait_us /= CLOCK_PULL
        self._timer = self._loop.call_later(max(0.0, wait_us / 1e6), self._tick)

    def _tick(self) -> None:
        now_us = self._engine.now_us()
        try:
            for _ in range(FIRES_MAX):
                if self._engine.draining or not self._due or self._due[0][0] > now_us:
                    break
                due_us, name = heappop(self._due)
                kept = self._kept.get(name)
                if kept is not None and kept.cron is not None and kept.due_us == due_us:
                    self._fire(name, kept, kept.cron, now_us)
                    self._set_due(name, kept, now_us + RETRY_US if kept.refusal else kept.next_us)
        finally:
            self._arm()

    def _fire(self, name: str, kept: Kept, cron: Cron, now_us: int) -> None:
        """Fire the times that are due. `refusal` has the error, if there is one."""
        times, seen_us = times_to_fire(kept.schedule, cron, kept.since_us, now_us)
        refusal = ""
        try:
            for time_us in times:
                if kept.schedule.overlap == "skip" and self._is_unfinished(kept.state.job_id):
                    self._skip(name, kept, seen_us)
                    break
                self._submit(name, kept, time_us)
            if not times and seen_us > kept.since_us:
                self._skip(name, kept, seen_us)
        except ApiError as error:
            refusal = str(error)
            if refusal != kept.refusal:
                logger.warning("schedule %s did not fire and is tried again: %s", name, refusal)
        kept.refusal = refusal

    def _is_unfinished(self, job_id: str) -> bool:
        if not job_id:
            return False
        try:
            return self._engine.view(ALL, job_id).state not in FINISHED
        except JobNotFound:
            return False

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
            state = State(seen_us, group.now_us, job_id, kept.state.passed)
            _put_state(group, name, state)
            if by is not None:
                self._audit.write(group, by, "schedule.run", name, job_id=job_id)
        kept.state, kept.since_us = state, seen_us

    def _skip(self, name: str, kept: Kept, seen_us: int) -> None:
        with self._engine.group(DOCUMENT_BYTES) as group:
            state = msgspec.structs.replace(kept.state, seen_us=seen_us, passed=kept.state.passed + 1)
            _put_state(group, name, state)
        kept.state, kept.since_us = state, seen_us


def _put_state(group: Group, name: str, state: State) -> None:
    group.put_document(DocumentKind.SCHEDULE_STATE, name, msgspec.json.encode(state))


def _kept(name: str, schedule: Schedule, state: State) -> Kept:
    """Make a schedule from its documents. Its time zone may have been removed since it was put."""
    since_us = max(schedule.put_us, state.seen_us)
    try:
        return Kept(schedule, Cron(schedule.cron, schedule.timezone), state, since_us)
    except InvalidRequest as error:
        logger.warning("schedule %s never fires: %s", name, error)
        return Kept(schedule, None, state, since_us, refusal=str(error))


def _may_see(who: Principal, schedule: Schedule) -> bool:
    """Whether the schedule exists for `who`: its jobs do."""
    return who.owns.has(schedule.owner_id, "" if who.queues is None else _queue_of(schedule))


class _Into(msgspec.Struct):
    queue: str | None = None


def _queue_of(schedule: Schedule) -> str:
    return msgspec.json.decode(schedule.job, type=_Into).queue or DEFAULT_QUEUE


def _are_equal(one: Schedule, other: Schedule) -> bool:
    """Whether two schedules are equal except for the key and the time of the put."""
    return msgspec.structs.replace(one, put_us=0, key_id="") == msgspec.structs.replace(other, put_us=0, key_id="")
