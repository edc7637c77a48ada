"""Jobs: search them, read one, change one, submit one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import quote

import msgspec
import orjson

from fastq._core import STATES, JobView
from fastq.console.forms import Form
from fastq.console.guard import Page, Visit, need
from fastq.console.parts import Parts
from fastq.engine.commands import Find
from fastq.engine.results import End
from fastq.errors import CleanerBehind, Overloaded
from fastq.http.resources.changes import edit_command
from fastq.http.resources.jobs import JobsQuery, cursor_of, find_command
from fastq.http.resources.submit import submit_command

READ, SUBMIT = "jobs:read", "jobs:submit"
PAGE_JOBS = 50
FILTERS = tuple(field.name for field in msgspec.structs.fields(JobsQuery) if field.name not in ("limit", "cursor"))
EDITABLE = frozenset({"READY", "SCHEDULED", "RETRY", "DEAD"})


class JobPages:
    def __init__(self, parts: Parts) -> None:
        self._engine = parts.engine

    async def jobs(self, visit: Visit) -> None:
        """A page of jobs by filter. With a filter that reads the log it says how far back it looked."""
        engine = self._engine
        given = {name: visit.query(name) for name in (*FILTERS, "cursor")}
        given = {name: text for name, text in given.items() if text}
        find = replace(find_command(given, engine.database_id), limit=PAGE_JOBS)
        jobs, ends, before, unreadable = await self._found(visit, find)
        visit.show(
            "jobs.html",
            jobs=jobs,
            errors={job_id: end.error for job_id, end in ends.items() if end.error},
            given=dict.fromkeys((*FILTERS, "cursor"), "") | given,
            filters=FILTERS,
            states=STATES,
            is_filtered=any(name != "cursor" for name in given),
            cursor=cursor_of(before, engine.database_id) if before else "",
            looked_until_us=engine.looked_until_us(before) if before else 0,
            unreadable=unreadable,
            curl=_curl_of(visit, given),
        )

    async def _found(self, visit: Visit, find: Find) -> tuple[list[JobView], dict[str, End], int, int]:
        jobs: list[JobView] = []
        ends: dict[str, End] = {}
        before = unreadable = 0
        async with self._engine.turns.of(visit.who.key_id) as turn:
            async for page in self._engine.pages(visit.who, find):
                jobs += page.jobs
                ends |= page.ends
                before, unreadable = page.before, unreadable + page.unreadable
                await turn.pause()
        return jobs, ends, before, unreadable

    async def job(self, visit: Visit, job_id: str) -> None:
        engine, who = self._engine, visit.who
        job = await engine.job(who, job_id, with_payload=True)
        history = await engine.history(who, job_id)
        visit.show(
            "job.html",
            job=job,
            history=history,
            view=engine.view(who.sees, job_id),
            why=engine.why(who, job_id),
            is_owned=who.owns.has(engine.view(who.sees, job_id).owner_id, job.queue),
            editable=EDITABLE,
            origin=_origin(visit),
        )

    async def payload(self, visit: Visit, job_id: str) -> None:
        """The whole payload, byte for byte, as a file."""
        job = await self._engine.job(visit.who, job_id, with_payload=True)
        _send(visit, job.payload or b"", f"{job_id}.json")

    async def result(self, visit: Visit, job_id: str) -> None:
        """The whole result, byte for byte, as a file."""
        job = await self._engine.job(visit.who, job_id)
        _send(visit, job.result or b"", f"{job_id}.result.json")

    # --- changes ------------------------------------------------------------------------------------------------------

    async def redrive(self, visit: Visit, job_id: str) -> None:
        state = self._engine.redrive(visit.who, job_id)
        visit.go(f"/console/jobs/{job_id}", f"Redriven: the job is {state.lower()} with 0 attempts.")

    async def cancel(self, visit: Visit, job_id: str) -> None:
        form = await visit.form()
        state = self._engine.cancel(visit.who, job_id, force=form.has("force"))
        said = (
            "Cancelled." if state == "CANCELLED" else "Cancel requested: its worker learns of it at its next heartbeat."
        )
        visit.go(f"/console/jobs/{job_id}", said)

    async def delete(self, visit: Visit, job_id: str) -> None:
        form = await visit.form()
        need(form.text("confirm") == "delete", "type the word delete to delete the job")
        self._engine.delete(visit.who, job_id)
        visit.go("/console/jobs", f"The job {job_id} is deleted.")

    async def edit(self, visit: Visit, job_id: str) -> None:
        form = await visit.form()
        body = _body({"priority": form.number("priority"), "queue": form.text("queue"), "run_at": form.text("run_at"),
                      "delay_ms": form.number("delay_ms")}, form.exact("payload"))  # fmt: skip
        state = await self._engine.edit(visit.who, job_id, edit_command(body, self._engine.now_us()))
        visit.go(f"/console/jobs/{job_id}", f"Saved: the job is {state.lower()}.")

    async def ask(self, visit: Visit) -> None:
        """The form of a new job, filled with another one's values if it is to be submitted again."""
        values: dict[str, Any] = {
            "queue": visit.query("queue"),
            "payload": "",
            "priority": "",
            "max_retries": "",
            "again": "",
        }
        if again := visit.query("again"):
            job = await self._engine.job(visit.who, again, with_payload=True)
            values = {
                "queue": job.queue,
                "payload": (job.payload or b"").decode(),
                "priority": job.priority,
                "max_retries": job.max_retries,
                "again": again,
            }
        visit.show("submit.html", values=values, origin=_origin(visit))

    async def submit(self, visit: Visit) -> None:
        form, engine = await visit.form(), self._engine
        body = _body(
            {
                "queue": form.text("queue"),
                "group": form.text("group"),
                "priority": form.number("priority"),
                "max_retries": form.number("max_retries"),
                "delay_ms": _delay_ms(form),
                "run_at": form.text("run_at"),
                "unique_key": form.text("unique_key"),
                "tags": [tag.strip() for tag in form.text("tags").split(",") if tag.strip()],
            },
            form.exact("payload"),
        )
        command = submit_command(body, engine.now_us())
        try:
            stored = engine.submit(visit.who, command)
        except (CleanerBehind, Overloaded):
            await engine.caught_up()
            stored = engine.submit(visit.who, command)
        visit.go(f"/console/jobs/{stored[0]}", "Submitted.")

    def pages(self) -> list[Page]:
        one = "/console/jobs/{job_id}"
        return [
            Page("GET", "/console/jobs", READ, self.jobs),
            Page("GET", one, READ, self.job),
            Page("GET", f"{one}/payload", READ, self.payload),
            Page("GET", f"{one}/result", READ, self.result),
            Page("POST", f"{one}/redrive", SUBMIT, self.redrive),
            Page("POST", f"{one}/cancel", SUBMIT, self.cancel),
            Page("POST", f"{one}/delete", SUBMIT, self.delete),
            Page("POST", f"{one}/edit", SUBMIT, self.edit),
            Page("GET", "/console/submit", SUBMIT, self.ask),
            Page("POST", "/console/submit", SUBMIT, self.submit),
        ]


def _send(visit: Visit, body: bytes, name: str) -> None:
    visit.resp.content_type = "application/json"
    visit.resp.set_header("Content-Disposition", f'attachment; filename="{quote(name)}"')
    visit.resp.data = body


def _delay_ms(form: Form) -> int | None:
    seconds = form.number("delay_s")
    return None if seconds is None else seconds * 1000


def _body(fields: dict[str, Any], payload: str) -> bytes:
    """The JSON body that the API takes, with the payload as it was typed: the API's own checks say what is wrong."""
    given = {name: value for name, value in fields.items() if value not in (None, "", [])}
    if payload.strip():
        given["payload"] = orjson.Fragment(payload.strip().encode("utf-8", "surrogatepass"))
    return orjson.dumps(given)


def _origin(visit: Visit) -> str:
    """The address of this server, as the browser sees it, for lines to copy."""
    return f"{visit.req.forwarded_scheme}://{visit.req.forwarded_host}{visit.prefix}"


def _curl_of(visit: Visit, given: dict[str, str]) -> str:
    query = "&".join(f"{name}={quote(text)}" for name, text in given.items())
    return f"curl -H \"Authorization: Bearer $FASTQ_KEY\" '{_origin(visit)}/jobs{'?' if query else ''}{query}'"
