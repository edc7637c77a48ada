"""Schedules: when each submits its job and what became of it; pause, run, change, create and delete one."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import orjson

from fastq._core import JobView
from fastq.console.forms import Form
from fastq.console.guard import Page, Visit, need
from fastq.console.parts import Parts
from fastq.errors import InvalidRequest, JobNotFound, ScheduleNotFound
from fastq.http.fields import queue_name
from fastq.http.resources.schedules import MANAGE, schedule_of
from fastq.services.schedule import CATCH_UP_DEFAULT, Kept, interval_ms

SCHEDULES = "/console/schedules"
PAGE_SCHEDULES = 100
NEXT_TIMES = 5
AUDIT_ENTRIES = 10
FIELDS = ("name", "cron", "timezone", "catch_up", "catch_up_max", "overlap", "job")
NEW = dict.fromkeys(FIELDS, "") | {"timezone": "UTC", "catch_up": "one", "overlap": "skip",
                                   "catch_up_max": str(CATCH_UP_DEFAULT)}  # fmt: skip


class SchedulePages:
    def __init__(self, parts: Parts) -> None:
        self._engine, self._schedules, self._audit = parts.engine, parts.schedules, parts.audit

    # --- reads --------------------------------------------------------------------------------------------------------

    async def schedules(self, visit: Visit) -> None:
        self._show_all(visit, NEW)

    def _show_all(self, visit: Visit, values: dict[str, str], error: str = "") -> None:
        """Show the list, and the form of a new schedule with the values."""
        found, after = self._schedules.list(visit.who, visit.query("after"), PAGE_SCHEDULES)
        visit.show(
            "schedules.html",
            400 if error else 200,
            schedules=[(name, kept, self._last(visit, kept)) for name, kept in found],
            after=after,
            values=values,
            error=error,
        )

    async def schedule(self, visit: Visit, name: str) -> None:
        kept = self._schedules.show(visit.who, name)
        self._show_one(visit, name, kept, _values_of(name, kept))

    def _show_one(self, visit: Visit, name: str, kept: Kept, values: dict[str, str], error: str = "") -> None:
        visit.show(
            "schedule.html",
            400 if error else 200,
            name=name,
            kept=kept,
            last=self._last(visit, kept),
            next_times=_next_times(kept, self._engine.now_us()),
            job=bytes(kept.schedule.job),
            entries=self._audit.about("schedule", name, AUDIT_ENTRIES) if visit.who.is_admin else [],
            values=values,
            error=error,
        )

    def _last(self, visit: Visit, kept: Kept) -> JobView | None:
        """The last job; None if there was none, or it was removed."""
        try:
            return self._engine.view(visit.who.sees, kept.state.job_id) if kept.state.job_id else None
        except JobNotFound:
            return None

    # --- changes ------------------------------------------------------------------------------------------------------

    async def create(self, visit: Visit) -> None:
        values = _values(await visit.form())
        try:
            name = queue_name(values["name"], "name")
            need(not self._exists(visit, name), f"there is a schedule {name}: change it on its own page")
            self._put(visit, name, values, visit.who.owner_id)
        except InvalidRequest as error:
            self._show_all(visit, values, str(error))
            return
        visit.go(f"{SCHEDULES}/{name}", f"The schedule {name} is created.")

    def _exists(self, visit: Visit, name: str) -> bool:
        try:
            self._schedules.show(visit.who, name)
        except ScheduleNotFound:
            return False
        return True

    async def edit(self, visit: Visit, name: str) -> None:
        kept = self._schedules.show(visit.who, name)
        values = _values(await visit.form()) | {"name": name}
        try:
            self._put(visit, name, values, kept.schedule.owner_id)
        except InvalidRequest as error:
            self._show_one(visit, name, kept, values, str(error))
            return
        visit.go(f"{SCHEDULES}/{name}", "Saved.")

    def _put(self, visit: Visit, name: str, values: dict[str, str], owner_id: str) -> None:
        """A schedule that an admin changes stays its owner's."""
        schedule = schedule_of(_body(values), owner_id, visit.who.key_id, self._engine.now_us())
        self._schedules.put(visit.who, name, schedule)

    async def pause(self, visit: Visit, name: str) -> None:
        self._schedules.pause(visit.who, name)
        visit.go(f"{SCHEDULES}/{name}", "Paused: it submits nothing until it is resumed.")

    async def resume(self, visit: Visit, name: str) -> None:
        self._schedules.resume(visit.who, name)
        visit.go(f"{SCHEDULES}/{name}", "Resumed: it submits its job from the next time on.")

    async def run(self, visit: Visit, name: str) -> None:
        job_id = self._schedules.run(visit.who, name)
        visit.go(f"{SCHEDULES}/{name}", f"Submitted the job {job_id}.")

    async def delete(self, visit: Visit, name: str) -> None:
        form = await visit.form()
        need(form.text("confirm") == "delete", "type the word delete to delete the schedule")
        self._schedules.delete(visit.who, name)
        visit.go(SCHEDULES, f"The schedule {name} is deleted. Its jobs stay.")

    def pages(self) -> list[Page]:
        one = f"{SCHEDULES}/{{name}}"
        return [
            Page("GET", SCHEDULES, MANAGE, self.schedules),
            Page("POST", SCHEDULES, MANAGE, self.create),
            Page("GET", one, MANAGE, self.schedule),
            Page("POST", one, MANAGE, self.edit),
            Page("POST", f"{one}/pause", MANAGE, self.pause),
            Page("POST", f"{one}/resume", MANAGE, self.resume),
            Page("POST", f"{one}/run", MANAGE, self.run),
            Page("POST", f"{one}/delete", MANAGE, self.delete),
        ]


def _values(form: Form) -> dict[str, str]:
    return {field: form.exact(field).strip() for field in FIELDS}


def _values_of(name: str, kept: Kept) -> dict[str, str]:
    """The fields of the form that changes it. Its job stays byte for byte what it is."""
    given = {field: str(getattr(kept.schedule, field)) for field in FIELDS if field not in ("name", "job")}
    return given | {"name": name, "cron": kept.schedule.expression, "job": bytes(kept.schedule.job).decode()}


def _body(values: dict[str, str]) -> bytes:
    """The JSON body that the API takes: its own checks say what is wrong. Raises InvalidRequest."""
    body: dict[str, Any] = {field: values[field] for field in ("cron", "timezone", "catch_up", "overlap")}
    if every_ms := interval_ms(body["cron"]):
        del body["cron"], body["timezone"]  # an interval has none
        body["every_ms"] = every_ms
    if text := values["catch_up_max"]:
        need(text.isdecimal() and len(text) < 10, "catch_up_max must be a whole number")
        body["catch_up_max"] = int(text)
    job = values["job"].encode("utf-8", "surrogatepass")
    try:
        msgspec.json.decode(job, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        raise InvalidRequest("job must be a JSON object") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"job must be JSON: {error}") from None
    return orjson.dumps(body | {"job": orjson.Fragment(job)})


def _next_times(kept: Kept, now_us: int) -> list[tuple[int, str]]:
    """The next times, each with the text of the zone's clock."""
    times = kept.times
    found: list[tuple[int, str]] = []
    if times is None:
        return []
    zone, at_us = ZoneInfo(kept.schedule.timezone), now_us
    while len(found) < NEXT_TIMES and (next_us := times.after(at_us)) is not None:
        local = datetime.fromtimestamp(next_us / 1_000_000, zone)
        found.append((next_us, local.strftime("%a %Y-%m-%d %H:%M:%S %Z" if local.second else "%a %Y-%m-%d %H:%M %Z")))
        at_us = next_us
    return found
