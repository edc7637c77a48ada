"""Jobs: search them, read one, change one, submit one."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import msgspec
import orjson

from fastq._core import STATES, JobView
from fastq.console.forms import Form
from fastq.console.guard import Page, Visit, need
from fastq.console.parts import Parts
from fastq.console.render import PRETTY_BYTES_MAX, iso, plain
from fastq.engine.commands import Find
from fastq.engine.results import End, JobStatus
from fastq.errors import CleanerBehind, InvalidRequest, Overloaded
from fastq.http.resources.changes import edit_command
from fastq.http.resources.jobs import JobsQuery, cursor_of, find_command
from fastq.http.resources.submit import submit_command

_HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]+")
READ, SUBMIT = "jobs:read", "jobs:submit"
PAGE_JOBS = 50
FILTERS = tuple(field.name for field in msgspec.structs.fields(JobsQuery) if field.name not in ("limit", "cursor"))
SUBMITTED = ("payload", "queue", "priority", "delay_s", "max_retries", "group", "unique_key", "tags", "again")
EDITABLE = frozenset({"READY", "SCHEDULED", "RETRY", "DEAD"})


class JobPages:
    def __init__(self, parts: Parts) -> None:
        self._engine, self._queues = parts.engine, parts.queues

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
            filter={name: text for name, text in given.items() if name != "cursor"},
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

    async def find(self, visit: Visit) -> None:
        """Go to the job with an id."""
        job_id = visit.query("job_id")
        self._engine.view(visit.who.sees, job_id)
        visit.go(f"/console/jobs/{job_id}")

    async def job(self, visit: Visit, job_id: str) -> None:
        job = await self._engine.job(visit.who, job_id, with_payload=True)
        await self._show(visit, job, _values_of(job))

    async def _show(self, visit: Visit, job: JobStatus, values: dict[str, str], error: str = "") -> None:
        """Show a job, and the form that edits it with the values."""
        engine, who, job_id = self._engine, visit.who, job.job_id
        history, why = await engine.history(who, job_id), engine.why(who, job_id)
        visit.show(
            "job.html",
            400 if error else 200,
            values=values,
            error=error,
            job=job,
            history=history,
            view=engine.view(who.sees, job_id),
            why=why,
            pause=self._queues.pause_of(why.queue),
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
        """Change what differs from the job as it is."""
        form, engine = await visit.form(), self._engine
        job = await engine.job(visit.who, job_id, with_payload=True)
        values = {name: form.text(name) for name in ("queue", "priority", "run_at")}
        values["payload"] = form.exact("payload").strip()
        before = _values_of(job)
        changed: dict[str, Any] = {name: text for name, text in values.items() if text and text != before[name]}
        if not changed:
            visit.go(f"/console/jobs/{job_id}", "Nothing was changed.")
            return
        try:
            if "priority" in changed:
                changed["priority"] = form.number("priority")
            body = _body(changed, changed.pop("payload", ""))
            state = await engine.edit(visit.who, job_id, edit_command(body, engine.now_us()))
        except InvalidRequest as error:
            await self._show(visit, job, values, str(error))
            return
        visit.go(f"/console/jobs/{job_id}", f"Saved: the job is {state.lower()}.")

    async def ask(self, visit: Visit) -> None:
        """The form of a new job, filled with another one's values if it is to be submitted again."""
        values = dict.fromkeys(SUBMITTED, "") | {"queue": visit.query("queue")}
        if again := visit.query("again"):
            job = await self._engine.job(visit.who, again, with_payload=True)
            values |= {
                "queue": job.queue,
                "group": job.group,
                "payload": _in_field(job.payload or b""),
                "priority": str(job.priority),
                "max_retries": str(job.max_retries),
                "tags": ", ".join(job.tags),
                "again": again,
            }
        visit.show("submit.html", values=values, error="")

    async def submit(self, visit: Visit) -> None:
        form, engine = await visit.form(), self._engine
        try:
            command = submit_command(_submit_body(form), engine.now_us())
        except InvalidRequest as error:
            values = {name: form.text(name) for name in SUBMITTED} | {"payload": form.exact("payload")}
            visit.show("submit.html", 400, values=values, error=str(error))
            return
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
            Page("GET", "/console/find", READ, self.find),
            Page("GET", f"{one}/payload", READ, self.payload),
            Page("GET", f"{one}/result", READ, self.result),
            Page("POST", f"{one}/redrive", SUBMIT, self.redrive),
            Page("POST", f"{one}/cancel", SUBMIT, self.cancel),
            Page("POST", f"{one}/delete", SUBMIT, self.delete),
            Page("POST", f"{one}/edit", SUBMIT, self.edit),
            Page("GET", "/console/submit", SUBMIT, self.ask),
            Page("POST", "/console/submit", SUBMIT, self.submit),
        ]


def _values_of(job: JobStatus) -> dict[str, str]:
    """The fields of the form that edits a job. A payload that is too long for it is left out."""
    payload = job.payload or b""
    return {
        "queue": job.queue,
        "priority": str(job.priority),
        "run_at": iso(job.run_at_us) if job.state in ("SCHEDULED", "RETRY") else "",
        "payload": _in_field(payload) if len(payload) <= PRETTY_BYTES_MAX else "",
    }


def _in_field(payload: bytes) -> str:
    """JSON text for a field of a form: it means the same. What turns the direction of text is an escape of a string."""
    return plain(payload.decode().replace("\r", " ").strip())


def _send(visit: Visit, body: bytes, name: str) -> None:
    visit.resp.content_type = "application/json"
    visit.resp.set_header("Content-Disposition", f'attachment; filename="{quote(name)}"')
    visit.resp.data = body


def _submit_body(form: Form) -> bytes:
    fields = {
        "queue": form.text("queue"),
        "group": form.text("group"),
        "priority": form.number("priority"),
        "max_retries": form.number("max_retries"),
        "delay_ms": form.number("delay_s", 1000),
        "unique_key": form.text("unique_key"),
        "tags": [tag.strip() for tag in form.text("tags").split(",") if tag.strip()],
    }
    return _body(fields, form.exact("payload"))


def _body(fields: dict[str, Any], payload: str) -> bytes:
    """The JSON body that the API takes, with the payload as it was typed: the API's own checks say what is wrong."""
    given = {name: value for name, value in fields.items() if value not in (None, "", [])}
    if payload.strip():
        given["payload"] = orjson.Fragment(payload.strip().encode("utf-8", "surrogatepass"))
    return orjson.dumps(given)


def _origin(visit: Visit) -> str:
    """The address of this server, as the browser sees it, for lines to copy: a shell reads it as it is."""
    scheme = "https" if visit.req.forwarded_scheme == "https" else "http"
    host = visit.req.forwarded_host
    return f"{scheme}://{host if _HOST.fullmatch(host) else 'HOST'}{visit.prefix}"


def _curl_of(visit: Visit, given: dict[str, str]) -> str:
    query = "&".join(f"{name}={quote(text)}" for name, text in given.items())
    return f"curl -H \"Authorization: Bearer $FASTQ_KEY\" '{_origin(visit)}/jobs{'?' if query else ''}{query}'"
