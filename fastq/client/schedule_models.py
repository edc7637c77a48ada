"""Schedules. The names are those of the API."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType, field

from fastq.client.answers import AnswerStruct


class Cron(msgspec.Struct):
    """The times of a schedule.

    cron: minute, hour, day of month, month, day of week. timezone: an IANA name. catch_up: for missed times submit no
    job, one job, or one for each of the last `catch_up_max`. overlap: skip a time while the last job is unfinished, or
    submit the next job anyway.
    """

    cron: str
    timezone: str = "UTC"
    catch_up: Literal["skip", "one", "all"] = "one"
    overlap: Literal["skip", "allow"] = "skip"
    catch_up_max: int | UnsetType = UNSET


class Every(msgspec.Struct):
    """The times of a schedule: the multiples of `every_ms` since 1970. The rest is as for `Cron`."""

    every_ms: int
    catch_up: Literal["skip", "one", "all"] = "one"
    overlap: Literal["skip", "allow"] = "skip"
    catch_up_max: int | UnsetType = UNSET


class LastRun(AnswerStruct, frozen=True):
    """The last submit of a schedule. state: of its job; empty if that does not exist any more."""

    at: datetime
    job_id: str
    state: str = ""


class Schedule(AnswerStruct, frozen=True, kw_only=True):
    """A schedule at the time of the request.

    job_json: the job; null in a list of schedules. passed: how many times it skipped. refusal: why the last submit
    failed. paused: it is not due until it is resumed. every_ms: None if it has a cron expression, which is empty
    otherwise. next_runs: the next five times; empty in a list. missed: times that did not fire since the server was
    down.
    """

    name: str
    cron: str = ""
    timezone: str = ""
    every_ms: int | None = None
    catch_up: str = "one"
    catch_up_max: int = 0
    overlap: str = "skip"
    owner_id: str = ""
    job_json: Raw = field(name="job", default=Raw(b"null"))
    next_at: datetime | None = None
    last_fired_at: datetime | None = None
    last_job_id: str = ""
    next_runs: tuple[datetime, ...] = ()
    last_run: LastRun | None = None
    passed: int = 0
    missed: int = 0
    refusal: str = ""
    paused: bool = False
