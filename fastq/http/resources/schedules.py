"""Schedules: list, show, set, pause, resume, delete, run now."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any, Literal

import msgspec
import orjson
from falcon.asgi import Request, Response
from msgspec import Meta

from fastq.engine import Engine
from fastq.engine.commands import JobOptions, Principal, Submit
from fastq.errors import InvalidRequest, JobNotFound
from fastq.http.decoding import decode, read_body
from fastq.http.errors import Failure
from fastq.http.fields import BODY_BYTES_MAX, State, Time, queue_name
from fastq.http.long_answers import array_of, page_of
from fastq.http.queries import read_query
from fastq.http.reply import JSON, encode, time_of
from fastq.http.resources.submit import JobCreated, submit_command
from fastq.http.routes import BEHIND, CHANGES, DISK_FULL, TOO_MUCH, Answer, Route
from fastq.services.cron import CRON_CHARACTERS_MAX, ZONE_CHARACTERS_MAX
from fastq.services.schedule import CATCH_UP_DEFAULT, CATCH_UP_MAX, Kept, Schedule
from fastq.services.schedules import Schedules

MANAGE = "schedules:manage"
EVERY_MS_MIN, EVERY_MS_MAX = 1_000, 366 * 86_400_000
PAGE_MAX = 1_000
SLICE_SCHEDULES = 50  # of a piece of a page
NO_SUCH = Answer(404, "the schedule does not exist or belongs to another owner", Failure)
ONCE_ONLY = ("run_at", "expires_at", "idempotency_key")  # members of a job that a schedule cannot repeat


class ScheduleBody(msgspec.Struct, forbid_unknown_fields=True):
    """A schedule: the job to submit, and its times: `cron` or `every_ms`."""

    job: Annotated[
        msgspec.Raw,
        Meta(
            description=f"The body of POST /jobs without {', '.join(ONCE_ONLY)}.",
            extra_json_schema={"type": "object", "required": ["payload"]},
        ),
    ]
    cron: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=CRON_CHARACTERS_MAX,
                description="Minute, hour, day of month, month and day of week in the time zone.",
            ),
        ]
        | None
    ) = None
    every_ms: (
        Annotated[
            int, Meta(ge=EVERY_MS_MIN, le=EVERY_MS_MAX, description="Due at the multiples of it since 1970, in UTC.")
        ]
        | None
    ) = None
    timezone: Annotated[str, Meta(max_length=ZONE_CHARACTERS_MAX, description="Of `cron`: an IANA time zone.")] = "UTC"
    catch_up: Annotated[
        Literal["skip", "one", "all"],
        Meta(description="Missed times: skip them, submit one job for all of them, or one for each."),
    ] = "one"
    catch_up_max: Annotated[
        int, Meta(ge=1, le=CATCH_UP_MAX, description="With `all`: the largest number of missed times, the last ones.")
    ] = CATCH_UP_DEFAULT
    overlap: Annotated[
        Literal["skip", "allow"],
        Meta(description="A time at which the last job is unfinished: skip it, or submit another job."),
    ] = "skip"


class LastRun(msgspec.Struct, forbid_unknown_fields=True):
    """The last submit. `state`: of its job, if that still exists."""

    at: Time
    job_id: str
    state: State | msgspec.UnsetType = msgspec.UNSET


class ScheduleShown(msgspec.Struct, forbid_unknown_fields=True):
    """A schedule as it is now.

    A list leaves out `job` and `next_runs`, the next five times. `passed` counts how often times were skipped: the last
    job was unfinished, or they were missed. `missed` counts the times that were passed over, since the server was down
    or the submit was refused: of one gap at most 100. `refusal`: the error of the last submit; the server tries again.
    `paused`: it is not due.
    """

    name: str
    catch_up: Literal["skip", "one", "all"]
    catch_up_max: int
    overlap: Literal["skip", "allow"]
    owner_id: str
    passed: int
    missed: int
    cron: str | msgspec.UnsetType = msgspec.UNSET
    timezone: str | msgspec.UnsetType = msgspec.UNSET
    every_ms: int | msgspec.UnsetType = msgspec.UNSET
    paused: bool | msgspec.UnsetType = msgspec.UNSET
    job: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    next_at: Time | msgspec.UnsetType = msgspec.UNSET
    next_runs: list[Time] | msgspec.UnsetType = msgspec.UNSET
    last_run: LastRun | msgspec.UnsetType = msgspec.UNSET
    last_fired_at: Time | msgspec.UnsetType = msgspec.UNSET
    last_job_id: str | msgspec.UnsetType = msgspec.UNSET
    refusal: str | msgspec.UnsetType = msgspec.UNSET


class SchedulesShown(msgspec.Struct, forbid_unknown_fields=True):
    """A page of schedules by name. `cursor`: there are more."""

    schedules: list[ScheduleShown]
    cursor: str | msgspec.UnsetType = msgspec.UNSET


class SchedulesQuery(msgspec.Struct, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = PAGE_MAX
    cursor: Annotated[str, Meta(max_length=64, description="From the previous page.")] = ""


_SCHEDULE = msgspec.json.Decoder(ScheduleBody)
_EXAMPLE = {
    "cron": "30 2 * * MON-FRI",
    "timezone": "Europe/Vienna",
    "job": {"payload": {"report": "daily"}, "queue": "reports"},
    "catch_up": "one",
    "overlap": "skip",
}


def read_job(text: bytes, now_us: int) -> Submit:
    """Decode a schedule's job. Raises InvalidRequest."""
    try:
        return submit_command(text, now_us)
    except InvalidRequest as error:
        raise InvalidRequest(f"job: {error}") from None


def schedule_of(body: bytes, owner_id: str, key_id: str, now_us: int) -> Schedule:
    """Decode PUT /schedules/{schedule}. `Schedules.put` checks the cron expression and the time zone.

    Raises:
        InvalidRequest.
    """
    fields = decode(body, _SCHEDULE)
    job = bytes(fields.job)
    command = read_job(job, now_us)
    options = command.options or JobOptions()
    for name, given in zip(ONCE_ONLY, (command.run_at_us, options.expires_us, options.idempotency_key), strict=True):
        if given:
            raise InvalidRequest(f"job.{name} must be left out: a schedule submits more than once")
    if fields.catch_up == "all" and fields.overlap == "skip":
        raise InvalidRequest("overlap must be allow when catch_up is all")
    if (fields.cron is None) == (fields.every_ms is None):
        raise InvalidRequest("one of cron and every_ms is required, and not both")
    if fields.every_ms is not None and fields.timezone != "UTC":
        raise InvalidRequest("timezone must be left out when every_ms is given")
    return Schedule(
        fields.cron or "",
        fields.timezone,
        msgspec.Raw(job),
        owner_id,
        key_id,
        put_us=0,
        catch_up=fields.catch_up,
        catch_up_max=fields.catch_up_max,
        overlap=fields.overlap,
        every_ms=fields.every_ms or 0,
    )


def listed(name: str, kept: Kept, engine: Engine, who: Principal) -> dict[str, Any]:
    schedule, state = kept.schedule, kept.state
    answer: dict[str, Any] = {
        "name": name,
        "catch_up": schedule.catch_up,
        "catch_up_max": schedule.catch_up_max,
        "overlap": schedule.overlap,
        "owner_id": schedule.owner_id,
        "passed": state.passed,
        "missed": state.missed,
    }
    if schedule.every_ms:
        answer["every_ms"] = schedule.every_ms
    else:
        answer |= {"cron": schedule.cron, "timezone": schedule.timezone}
    if schedule.paused:
        answer["paused"] = True
    if kept.due_us is not None:
        answer["next_at"] = time_of(kept.due_us)
    if state.job_id:
        answer |= {"last_fired_at": time_of(state.fired_us), "last_job_id": state.job_id}
        last: dict[str, Any] = {"at": time_of(state.fired_us), "job_id": state.job_id}
        with suppress(JobNotFound):
            last["state"] = engine.view(who.sees, state.job_id).state
        answer["last_run"] = last
    if kept.refusal:
        answer["refusal"] = kept.refusal
    return answer


class ScheduleRoutes:
    """The responders of /schedules."""

    def __init__(self, engine: Engine, schedules: Schedules) -> None:
        self._engine, self._schedules, self._now_us = engine, schedules, engine.now_us

    def _show(self, resp: Response, who: Principal, name: str, kept: Kept) -> None:
        """Answer with the schedule, its job, and its next times."""
        answer = listed(name, kept, self._engine, who) | {"job": orjson.Fragment(bytes(kept.schedule.job))}
        if runs := kept.next_runs():
            answer["next_runs"] = [time_of(us) for us in runs]
        _answer(resp, answer)

    async def list_all(self, req: Request, resp: Response) -> None:
        query = read_query(req, SchedulesQuery)
        who = req.context.principal
        found, cursor = self._schedules.list(who, query.cursor, query.limit)

        async def slices() -> AsyncIterator[list[Any]]:
            for at in range(0, len(found), SLICE_SCHEDULES):
                yield [listed(name, kept, self._engine, who) for name, kept in found[at : at + SLICE_SCHEDULES]]

        schedules = await array_of(self._engine, req, slices())
        resp.content_type = JSON
        resp.data = page_of("schedules", schedules, cursor=cursor)

    async def show(self, req: Request, resp: Response, schedule: str) -> None:
        who = req.context.principal
        self._show(resp, who, schedule, self._schedules.show(who, schedule))

    async def put(self, req: Request, resp: Response, schedule: str) -> None:
        name = queue_name(schedule, "schedule")
        body = await read_body(req, BODY_BYTES_MAX)
        who = req.context.principal
        kept = self._schedules.put(who, name, schedule_of(body, who.owner_id, who.key_id, self._now_us()))
        self._show(resp, who, name, kept)

    async def pause(self, req: Request, resp: Response, schedule: str) -> None:
        who = req.context.principal
        self._show(resp, who, schedule, self._schedules.pause(who, schedule))

    async def resume(self, req: Request, resp: Response, schedule: str) -> None:
        who = req.context.principal
        self._show(resp, who, schedule, self._schedules.resume(who, schedule))

    async def delete(self, req: Request, resp: Response, schedule: str) -> None:
        self._schedules.delete(req.context.principal, schedule)
        resp.status = 204

    async def run(self, req: Request, resp: Response, schedule: str) -> None:
        job_id = self._schedules.run(req.context.principal, schedule)
        resp.status = 201
        _answer(resp, {"job_id": job_id})

    def routes(self) -> list[Route]:
        return [*self._looking(), *self._changing()]

    def _looking(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/schedules",
                MANAGE,
                self.list_all,
                "List the schedules; a client key sees its owner's",
                (Answer(200, "a page of schedules", SchedulesShown),),
                query=SchedulesQuery,
            ),
            Route(
                "GET",
                "/schedules/{schedule}",
                MANAGE,
                self.show,
                "Show a schedule",
                (Answer(200, "the schedule", ScheduleShown), NO_SUCH),
            ),
        ]

    def _changing(self) -> list[Route]:
        stored = Answer(200, "the schedule is on stable storage", ScheduleShown)
        return [
            Route(
                "PUT",
                "/schedules/{schedule}",
                MANAGE,
                self.put,
                "Set a schedule: submit a job at the times of a cron expression",
                (
                    stored,
                    Answer(
                        409, "another owner has a schedule of this name, or the limit of schedules is reached", Failure
                    ),
                    *CHANGES,
                ),
                ScheduleBody,
                example=_EXAMPLE,
            ),
            Route(
                "POST",
                "/schedules/{schedule}/pause",
                MANAGE,
                self.pause,
                "Pause a schedule: submit no job at its times",
                (stored, NO_SUCH, *TOO_MUCH, DISK_FULL),
            ),
            Route(
                "POST",
                "/schedules/{schedule}/resume",
                MANAGE,
                self.resume,
                "Resume a schedule from its next time on",
                (stored, NO_SUCH, *TOO_MUCH, DISK_FULL),
            ),
            Route(
                "DELETE",
                "/schedules/{schedule}",
                MANAGE,
                self.delete,
                "Delete a schedule; its jobs stay",
                (Answer(204, "the schedule is deleted"), NO_SUCH, *TOO_MUCH, DISK_FULL),
            ),
            Route(
                "POST",
                "/schedules/{schedule}/run",
                MANAGE,
                self.run,
                "Submit a schedule's job now",
                (
                    Answer(201, "the job is on stable storage", JobCreated),
                    NO_SUCH,
                    BEHIND,
                    *TOO_MUCH,
                    DISK_FULL,
                ),
            ),
        ]


def _answer(resp: Response, answer: Any) -> None:
    resp.content_type = JSON
    resp.data = encode(answer)
