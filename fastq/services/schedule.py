"""One schedule: its document, its state, and its times."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from itertools import islice, takewhile

import msgspec

from fastq.errors import InvalidRequest
from fastq.services.catch_up import Search
from fastq.services.cron import Cron, Every, Times

logger = logging.getLogger("fastq.schedules")

CATCH_UP_MAX = 1_000  # missed times of one schedule
CATCH_UP_DEFAULT = 100
RUNS_SHOWN = 5
MISSED_COUNTED = 100
EVERY = "@every "
UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
INTERVAL = re.compile(r"@every (\d{1,11})(ms|s|m|h)", re.ASCII)


class Schedule(msgspec.Struct, frozen=True, omit_defaults=True):
    """A schedule. Its document is JSON under its name. A later version may add members with defaults.

    Args:
        job: the unchanged JSON of a job for POST /jobs.
        owner_id, key_id: the owner of the jobs, and the key that put the schedule.
        put_us: when it was put; it does not fire for earlier times.
        catch_up: what happens to missed times: `skip`, `one` (one job for all of them), `all` (a job for each of the
            last `catch_up_max`).
        overlap: what happens while the last job is unfinished: `skip` skips the time, `allow` submits another job.
        every_ms: it is due at the multiples of it since 1970; 0: at the times of `cron`, which is empty otherwise.
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
    every_ms: int = 0

    @property
    def expression(self) -> str:
        """Its times as a person writes them: the cron expression, or `@every 5m`."""
        if not self.every_ms:
            return self.cron
        unit = next(unit for unit in ("h", "m", "s", "ms") if self.every_ms % UNITS_MS[unit] == 0)
        return f"{EVERY}{self.every_ms // UNITS_MS[unit]}{unit}"


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a schedule; JSON under its name.

    Args:
        seen_us: times up to this one have fired or were skipped.
        fired_us, job_id: the last submit and its job; 0 and empty before the first one.
        passed: how often times were skipped.
        missed: times that were passed over, since the server was down or the submit was refused; of one gap at most
            MISSED_COUNTED.
    """

    seen_us: int = 0
    fired_us: int = 0
    job_id: str = ""
    passed: int = 0
    missed: int = 0


@dataclass
class Kept:
    """A schedule in memory.

    Args:
        cron: None if this version or its time zones cannot parse it; `refusal` has the error.
        since_us: times up to this one have fired or were skipped.
        due_us: None if it is never due again.
        refusal: the error of the last fire, empty if it succeeded.
        search: goes on to the first of the times that fire now; None: it has not begun, or it is over.
        fire_us: the time that fires when `due_us` is reached; None: search it first.
        runs: `since_us` and the next times after it, since they are costly to find.
        missed: times that the next fire or skip passes over.
    """

    schedule: Schedule
    times: Times | None
    state: State
    since_us: int
    due_us: int | None = None
    refusal: str = ""
    search: Search | None = None
    fire_us: int | None = None
    runs: tuple[int, list[int]] = (-1, [])
    missed: int = 0

    def next_runs(self) -> list[int]:
        """The next RUNS_SHOWN times, Unix microseconds; none while it is paused."""
        if self.times is None or self.schedule.paused:
            return []
        if self.runs[0] != self.since_us:
            found: list[int] = []
            at_us: int | None = self.since_us
            while len(found) < RUNS_SHOWN and at_us is not None and (at_us := self.times.after(at_us)) is not None:
                found.append(at_us)
            self.runs = self.since_us, found
        return self.runs[1]

    @property
    def next_us(self) -> int | None:
        return None if self.times is None or self.schedule.paused else self.times.after(self.since_us)


def interval_ms(expression: str) -> int:
    """The interval in `@every 5m`; 0 for a cron expression. Raises InvalidRequest."""
    if not expression.startswith(EVERY):
        return 0
    match = INTERVAL.fullmatch(expression)
    if match is None:
        raise InvalidRequest("an interval is a number and ms, s, m or h, such as @every 5m")
    return int(match[1]) * UNITS_MS[match[2]]


def missed_times(times: Times, since_us: int, until_us: int) -> int:
    """How many times there are after `since_us`, up to `until_us`; counted up to MISSED_COUNTED."""
    late = takewhile(lambda us: us > since_us, times.until(until_us))
    return sum(1 for _ in islice(late, MISSED_COUNTED))


def kept_of(name: str, schedule: Schedule, state: State) -> Kept:
    """Make a schedule from its documents. Its time zone may have been removed since it was put."""
    since_us = max(schedule.put_us, state.seen_us)
    try:
        return Kept(schedule, times_of(schedule), state, since_us)
    except InvalidRequest as error:
        logger.warning("schedule %s never fires: %s", name, error)
        return Kept(schedule, None, state, since_us, refusal=str(error))


def times_of(schedule: Schedule) -> Times:
    """Raises InvalidRequest."""
    return Every(schedule.every_ms) if schedule.every_ms else Cron(schedule.cron, schedule.timezone)


def are_equal(one: Schedule, other: Schedule) -> bool:
    """Whether two schedules are equal except for the key and the time of the put."""
    return msgspec.structs.replace(one, put_us=0, key_id="") == msgspec.structs.replace(other, put_us=0, key_id="")
