"""Schedules: a cron expression, a zone and a job that is submitted whenever it is due.

A fire is one record of the log: the job, and how far the schedule has come. So each time fires once, whatever crashes.
One timer stands for all schedules: it is set for the earliest of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import islice, takewhile

import msgspec

from fastq._core import FINISHED
from fastq.engine import Engine
from fastq.engine.commands import Principal, Submit
from fastq.engine.documents import DocumentKind, Group
from fastq.errors import ApiError, CleanerBehind, InvalidRequest, JobNotFound, NameTaken, ScheduleNotFound, TooMany
from fastq.services.audit import ENTRY_BYTES, Audit
from fastq.services.cron import Cron

logger = logging.getLogger("fastq.schedules")

SCHEDULES_MAX = 10_000
JOB_BYTES_MAX = 64 << 20  # of the jobs of all schedules: they are kept in memory
CATCH_UP_MAX = 1_000  # times that one schedule makes up for
CATCH_UP_DEFAULT = 100
MISSED_US = 60_000_000  # a time that could not fire for so long was missed; a restart within it is none
RETRY_US = 5_000_000  # after a fire was refused: a full queue, a full disk
FIRES_MAX = 100  # schedules that fire before other work gets its turn
DOCUMENT_BYTES = 4096  # of a schedule beside its job, and of its state
CLOCK_PULL = 1.1  # time runs at most so much faster than the timer: see fastq.clock
NEAR_US = 1_000_000  # closer than this that does not matter


class Schedule(msgspec.Struct, frozen=True, omit_defaults=True):
    """Its document is JSON under its name. A later version may add members that have defaults.

    Args:
        job: as POST /jobs takes it, as it was given.
        owner_id, key_id: whose jobs they are, and which key put it.
        put_us: when it was put like this: earlier times do not count.
        catch_up: what happens to times that were missed: `skip`, `one` (for all of them), `all` (each of the last
            `catch_up_max`).
        overlap: what happens while the last job is not finished: `skip` lets the time pass, `allow` fires all the same.
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


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a schedule has come; JSON under its name.

    Args:
        seen_us: times up to this one have fired or were let pass.
        fired_us: when it last submitted a job, which is job_id; 0 and empty if it never did.
        passed: times that were let pass, since the last job was not finished.
    """

    seen_us: int = 0
    fired_us: int = 0
    job_id: str = ""
    passed: int = 0


@dataclass
class Kept:
    """A schedule with what is made from it.

    Args:
        cron: None if this version, with the zones that there are now, cannot read it; `refusal` says why.
        since_us: times up to this one are done with.
        due_us: None if it is never due again.
        refusal: why its last try did not succeed.
    """

    schedule: Schedule
    cron: Cron | None
    state: State
    since_us: int
    due_us: int | None = None
    refusal: str = ""

    @property
    def next_us(self) -> int | None:
        return None if self.cron is None else self.cron.after(self.since_us)


ReadJob = Callable[[bytes, int], Submit]
"""(the JSON text of a job as POST /jobs takes it, now in Unix microseconds)"""


def times_to_fire(schedule: Schedule, cron: Cron, since_us: int, now_us: int) -> tuple[list[int], int]:
    """What to do about the times after `since_us` up to now: which of them fire, in their order, and the latest of all.

    If there are none: nothing, and `since_us`. Times that are late by less than MISSED_US were not missed.
    """
    due = takewhile(lambda due_us: due_us > since_us, cron.until(now_us))
    latest = list(islice(due, schedule.catch_up_max if schedule.catch_up == "all" else 1))
    if not latest:
        return [], since_us
    if schedule.catch_up == "skip" and now_us - latest[0] >= MISSED_US:
        return [], latest[0]
    return latest[::-1], latest[0]


class Schedules:
    """All schedules, and the timer that fires them. All methods belong to the event loop's thread."""

    def __init__(self, engine: Engine, audit: Audit, read_job: ReadJob) -> None:
        """Reads what is in the log; nothing fires before `start`."""
        self._engine, self._audit, self._read_job = engine, audit, read_job
        states = engine.documents(DocumentKind.SCHEDULE_STATE)
        self._kept: dict[str, Kept] = {}
        for name, body in engine.documents(DocumentKind.SCHEDULE).items():
            state = msgspec.json.decode(states[name], type=State) if name in states else State()
            self._kept[name] = _kept(name, msgspec.json.decode(body, type=Schedule), state)
        self._due: list[tuple[int, str]] = []  # a heap; what does not agree with `due_us` is out of date
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Fire from now on, and first what is due already."""
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
        """Keep a schedule in place of what was there. The same again changes nothing: it goes on as it was.

        Args:
            schedule: of `who`; its put_us does not count.
        Raises:
            InvalidRequest, NameTaken (another owner's), TooMany, DiskFull, Overloaded.
        """
        cron = Cron(schedule.cron, schedule.timezone)
        known = self._kept.get(name)
        if known is None and len(self._kept) >= SCHEDULES_MAX:
            raise TooMany("schedules", SCHEDULES_MAX)
        if known is not None and not _may_see(who, known.schedule):
            raise NameTaken(name)
        others_bytes = sum(len(kept.schedule.job) for other, kept in self._kept.items() if other != name)
        if others_bytes + len(schedule.job) > JOB_BYTES_MAX:
            raise TooMany("bytes of jobs in all schedules", JOB_BYTES_MAX)
        if known is not None and _are_equal(known.schedule, schedule):
            kept = known
        else:
            with self._engine.group(len(schedule.job) + 2 * DOCUMENT_BYTES + ENTRY_BYTES) as group:
                schedule = msgspec.structs.replace(schedule, put_us=group.now_us)
                body = msgspec.json.encode(schedule)
                group.put_document(DocumentKind.SCHEDULE, name, body, who.key_id)
                self._audit.write(
                    group, who, "schedule.put", name,
                    cron=schedule.cron, timezone=schedule.timezone,
                    catch_up=schedule.catch_up, overlap=schedule.overlap,
                )  # fmt: skip
            kept = Kept(schedule, cron, State() if known is None else known.state, group.now_us)
            self._kept[name] = kept
            self._set_due(name, kept, cron.after(group.now_us))
        return kept

    def delete(self, who: Principal, name: str) -> None:
        """Fire no more. The jobs that it has submitted stay. Raises ScheduleNotFound, DiskFull, Overloaded."""
        self._find(who, name)
        with self._engine.group(2 * DOCUMENT_BYTES + ENTRY_BYTES) as group:
            group.drop_document(DocumentKind.SCHEDULE, name, who.key_id)
            group.drop_document(DocumentKind.SCHEDULE_STATE, name, who.key_id)
            self._audit.write(group, who, "schedule.delete", name)
        del self._kept[name]

    def run(self, who: Principal, name: str) -> str:
        """Submit its job now, whatever the time and also while the last one is not finished; the job's id.

        Raises:
            ScheduleNotFound, and what a submit raises.
        """
        kept = self._find(who, name)
        self._submit(name, kept, kept.since_us, by=who)
        return kept.state.job_id

    # --- looking ------------------------------------------------------------------------------------------------------

    def list(self, who: Principal, after: str, limit: int) -> tuple[list[tuple[str, Kept]], str]:
        """Those that `who` may see, by name, behind `after`, at most `limit`; and `after` of the next page, or ""."""
        names = sorted(name for name, kept in self._kept.items() if name > after and _may_see(who, kept.schedule))
        found = [(name, self._kept[name]) for name in names[:limit]]
        return found, names[limit - 1] if len(names) > limit else ""

    def show(self, who: Principal, name: str) -> Kept:
        """Raises ScheduleNotFound."""
        return self._find(who, name)

    def _find(self, who: Principal, name: str) -> Kept:
        kept = self._kept.get(name)
        if kept is None or not _may_see(who, kept.schedule):
            raise ScheduleNotFound(name)
        return kept

    # --- time ---------------------------------------------------------------------------------------------------------

    @property
    def due_us(self) -> int | None:
        """When one may fire next."""
        return self._due[0][0] if self._due else None

    def look(self) -> None:
        """Fire at once what is due: for whoever moves the clock by hand, of which the loop's timers know nothing."""
        self._tick()

    def _set_due(self, name: str, kept: Kept, due_us: int | None) -> None:
        kept.due_us = due_us
        if due_us is not None:
            heappush(self._due, (due_us, name))
        if len(self._due) > 2 * len(self._kept) + FIRES_MAX:  # most of them are out of date
            self._order()
        self._arm()

    def _order(self) -> None:
        self._due = [(kept.due_us, name) for name, kept in self._kept.items() if kept.due_us is not None]
        heapify(self._due)

    def _arm(self) -> None:
        """Set the timer for the earliest.

        A far one is approached: the clock may run faster than the timer, and must not be met late.
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
        """Submit what is due by now; `refusal` says why that did not happen."""
        times, seen_us = times_to_fire(kept.schedule, cron, kept.since_us, now_us)
        refusal = ""
        try:
            for time_us in times:
                if kept.schedule.overlap == "skip" and self._is_unfinished(kept.state.job_id):
                    self._let_pass(name, kept, seen_us)
                    break
                self._submit(name, kept, time_us)
            if not times and seen_us > kept.since_us:
                self._let_pass(name, kept, seen_us)
        except ApiError as error:
            refusal = str(error)
            if refusal != kept.refusal:
                logger.warning("schedule %s did not fire, it is tried again: %s", name, refusal)
        kept.refusal = refusal

    def _is_unfinished(self, job_id: str) -> bool:
        if not job_id:
            return False
        try:
            return self._engine.view(job_id).state not in FINISHED
        except JobNotFound:
            return False

    # --- records ------------------------------------------------------------------------------------------------------

    def _submit(self, name: str, kept: Kept, seen_us: int, by: Principal | None = None) -> None:
        """One record: the job, and that the schedule has come so far. Raises what a submit raises: nothing changed."""
        schedule = kept.schedule
        if self._engine.cleaner.is_behind:
            raise CleanerBehind
        room_bytes = len(schedule.job) + DOCUMENT_BYTES + ENTRY_BYTES
        with self._engine.group(room_bytes, spare_segments=1) as group:
            command = self._read_job(bytes(schedule.job), group.now_us)
            job_id, _ = group.submit(command, schedule.owner_id, schedule.key_id)
            state = State(seen_us, group.now_us, job_id, kept.state.passed)
            _put_state(group, name, state)
            if by is not None:
                self._audit.write(group, by, "schedule.run", name, job_id=job_id)
        kept.state, kept.since_us = state, seen_us

    def _let_pass(self, name: str, kept: Kept, seen_us: int) -> None:
        with self._engine.group(DOCUMENT_BYTES) as group:
            state = msgspec.structs.replace(kept.state, seen_us=seen_us, passed=kept.state.passed + 1)
            _put_state(group, name, state)
        kept.state, kept.since_us = state, seen_us


def _put_state(group: Group, name: str, state: State) -> None:
    group.put_document(DocumentKind.SCHEDULE_STATE, name, msgspec.json.encode(state))


def _kept(name: str, schedule: Schedule, state: State) -> Kept:
    """A schedule as the log has it. What put it could read it; a zone may be gone since."""
    since_us = max(schedule.put_us, state.seen_us)
    try:
        return Kept(schedule, Cron(schedule.cron, schedule.timezone), state, since_us)
    except InvalidRequest as error:
        logger.warning("schedule %s never fires: %s", name, error)
        return Kept(schedule, None, state, since_us, refusal=str(error))


def _may_see(who: Principal, schedule: Schedule) -> bool:
    return who.is_admin or who.owner_id == schedule.owner_id


def _are_equal(one: Schedule, other: Schedule) -> bool:
    """Whether they do the same for the same owner, whichever of the owner's keys put them when."""
    return msgspec.structs.replace(one, put_us=0, key_id="") == msgspec.structs.replace(other, put_us=0, key_id="")
