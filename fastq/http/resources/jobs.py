"""Jobs: submit, and look."""

from __future__ import annotations

from falcon.asgi import Request, Response

from fastq._core import CREATED
from fastq.engine import Engine
from fastq.engine.commands import BATCH_BYTES_MAX
from fastq.errors import CleanerBehind, JobNotFound, Refused
from fastq.http.decoding import read_body
from fastq.http.errors import JSON
from fastq.http.resources import answers, bodies, change_bodies, job_answers
from fastq.http.routes import BEHIND, DISK_FULL, TOO_MUCH, WITH_BODY, Answer, Route

CHANGES = (*WITH_BODY, *TOO_MUCH, DISK_FULL)  # what every change may be answered with
CONNECTION = "fastq.connection"  # where a request's scope has the connection that its answer goes to
ABSENT = Answer(404, "no such job, or one of another owner", answers.Failure)
BEHIND_OR_FULL = Answer(429, f"{BEHIND.meaning}; or a depth limit, or too many idempotency keys", answers.Failure)
KEY_USED = Answer(422, "the idempotency key came with another request before", answers.Failure)


def idempotency_key_of(req: Request) -> str:
    """The header's; empty if there is none. Raises InvalidRequest."""
    key = req.get_header("Idempotency-Key")
    return "" if key is None else bodies.printable(key, "Idempotency-Key")


class Jobs:
    """The responders of what a client asks of jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._batch_bytes_max = min(BATCH_BYTES_MAX, engine.record_bytes_max // 2)

    async def submit(self, req: Request, resp: Response) -> None:
        body = await read_body(req, bodies.BODY_BYTES_MAX)
        traceparent = bodies.traceparent_of(req.get_header("traceparent"))
        command = bodies.submit_command(body, self._engine.now_us(), idempotency_key_of(req), traceparent)
        who = req.context.principal
        try:
            stored = self._engine.submit(who, command)
        except CleanerBehind:
            await self._engine.cleaner_caught_up()
            stored = self._engine.submit(who, command)
        resp.status = 201 if stored[1] == CREATED else 200
        resp.content_type = JSON
        resp.data = answers.job_created(stored)

    async def submit_many(self, req: Request, resp: Response) -> None:
        body = await read_body(req, self._batch_bytes_max)
        traceparent = bodies.traceparent_of(req.get_header("traceparent"))
        key = idempotency_key_of(req)
        commands, digest = bodies.submit_many_commands(body, self._engine.now_us(), key, traceparent)
        who = req.context.principal
        try:
            stored, repeated = self._engine.submit_many(who, commands, key, digest)
        except CleanerBehind:
            await self._engine.cleaner_caught_up()
            stored, repeated = self._engine.submit_many(who, commands, key, digest)
        resp.status = 201 if not repeated and any(how == CREATED for _, how in stored) else 200
        resp.content_type = JSON
        resp.data = answers.jobs_created(stored)

    async def show(self, req: Request, resp: Response, job_id: str) -> None:
        query = change_bodies.job_query(req)
        who, with_payload = req.context.principal, query.include == "payload"
        try:
            if query.wait_ms:
                connection = req.scope.get(CONNECTION)
                job = await self._engine.job_at_end(who, job_id, query.wait_ms, connection, with_payload=with_payload)
            else:
                job = await self._engine.job(who, job_id, with_payload=with_payload)
        except JobNotFound as error:
            raise Refused("job not found", error) from None
        resp.content_type = JSON
        resp.data = job_answers.job_shown(job)

    async def list_jobs(self, req: Request, resp: Response) -> None:
        who, database_id = req.context.principal, self._engine.database_id
        find = change_bodies.find_command(req, database_id)
        page = await self._engine.search(who, find) if find.text else self._engine.page(who, find)
        resp.content_type = JSON
        resp.data = job_answers.jobs_listed(page, database_id)

    async def attempts(self, req: Request, resp: Response, job_id: str) -> None:
        resp.data = job_answers.attempts_shown(await self._engine.history(req.context.principal, job_id))
        resp.content_type = JSON

    async def history(self, req: Request, resp: Response, job_id: str) -> None:
        resp.data = job_answers.history_shown(await self._engine.history(req.context.principal, job_id))
        resp.content_type = JSON

    async def why(self, req: Request, resp: Response, job_id: str) -> None:
        resp.data = job_answers.why_shown(self._engine.why(req.context.principal, job_id))
        resp.content_type = JSON

    def routes(self) -> list[Route]:
        return [*self._submits(), *self._looks(), *self._looks_closer()]

    def _submits(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/jobs",
                "jobs:submit",
                self.submit,
                "Store a job",
                (
                    Answer(201, "the job is on stable storage", answers.JobCreated),
                    Answer(200, "it was there before, by its idempotency key or unique key", answers.JobCreated),
                    KEY_USED,
                    *CHANGES,
                    BEHIND_OR_FULL,
                ),
                bodies.SubmitBody,
                headers=("Idempotency-Key", "traceparent"),
                example={"payload": {"mail": "ann@example.org"}, "queue": "mail", "unique_key": "mail-7"},
            ),
            Route(
                "POST",
                "/jobs/batch",
                "jobs:submit",
                self.submit_many,
                "Store jobs, all of them or none",
                (
                    Answer(201, "all jobs are on stable storage", answers.JobsCreated),
                    Answer(200, "all of them were there before", answers.JobsCreated),
                    KEY_USED,
                    *CHANGES,
                    BEHIND_OR_FULL,
                ),
                bodies.SubmitManyBody,
                headers=("Idempotency-Key", "traceparent"),
            ),
        ]

    def _looks(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/jobs/{job_id}",
                "jobs:read",
                self.show,
                "Look at a job, or wait for its end",
                (Answer(200, "the job as it is", job_answers.JobShown), ABSENT),
                query=change_bodies.JobQuery,
            ),
            Route(
                "GET",
                "/jobs",
                "jobs:read",
                self.list_jobs,
                "List jobs, the newest first",
                (Answer(200, "a page of them", job_answers.JobsListed),),
                query=change_bodies.JobsQuery,
            ),
        ]

    def _looks_closer(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/jobs/{job_id}/attempts",
                "jobs:read",
                self.attempts,
                "The last attempts at a job",
                (Answer(200, "those that have ended", job_answers.AttemptsShown), ABSENT),
            ),
            Route(
                "GET",
                "/jobs/{job_id}/history",
                "jobs:read",
                self.history,
                "What happened to a job, and who did it",
                (Answer(200, "its last events", job_answers.HistoryShown), ABSENT),
            ),
            Route(
                "GET",
                "/jobs/{job_id}/why",
                "jobs:read",
                self.why,
                "Why a job does not run now",
                (Answer(200, "what is in the way", job_answers.WhyShown), ABSENT),
            ),
        ]
