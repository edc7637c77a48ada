"""Jobs: submit, lease, ack, look."""

from __future__ import annotations

from falcon.asgi import Request, Response

from fastq.commands import BATCH_BYTES_MAX, Principal
from fastq.engine import Engine
from fastq.errors import ApiError, JobNotFound, LeaseLost, NoJobsAvailable, NotAckable, QueueForbidden, Refused
from fastq.http import answers, bodies
from fastq.http.errors import JSON
from fastq.http.routes import BEHIND, DISK_FULL, TOO_MUCH, WITH_BODY, Answer, Route

CHANGES = (*WITH_BODY, *TOO_MUCH, DISK_FULL)  # what every change may be answered with
CONNECTION = "fastq.connection"  # where a request's scope has the connection that its answer goes to


def _ack_refused(error: ApiError) -> Refused:
    """In the original's words; it has no 404 here."""
    return Refused("failed to ack job", error, status=400 if isinstance(error, JobNotFound) else None)


class Jobs:
    """The responders of everything below /jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._batch_bytes_max = min(BATCH_BYTES_MAX, engine.record_bytes_max // 2)

    async def submit(self, req: Request, resp: Response) -> None:
        body = await bodies.read_body(req, bodies.BODY_BYTES_MAX)
        command = bodies.submit_command(body, self._engine.now_us())
        job_id = await self._engine.submit(req.context.principal, command)
        resp.status = 201
        resp.content_type = JSON
        resp.data = answers.job_created(job_id)

    async def submit_many(self, req: Request, resp: Response) -> None:
        body = await bodies.read_body(req, self._batch_bytes_max)
        commands = bodies.submit_many_commands(body, self._engine.now_us())
        job_ids = await self._engine.submit_many(req.context.principal, commands)
        resp.status = 201
        resp.content_type = JSON
        resp.data = answers.jobs_created(job_ids)

    async def lease(self, req: Request, resp: Response) -> None:
        command, many = bodies.lease_command(await bodies.read_body(req, bodies.SMALL_BODY_BYTES_MAX))
        who: Principal = req.context.principal
        for queue in command.queues:
            if who.queues is not None and queue not in who.queues:
                raise QueueForbidden(queue)
        leased = await self._engine.lease(who, command, req.scope.get(CONNECTION))
        if not leased and not many:
            raise Refused("no jobs available", NoJobsAvailable())
        resp.content_type = JSON
        if many:
            resp.data = answers.jobs_leased(leased)
        else:
            resp.data = answers.job_leased(leased[0], payload_as_string=not command.had_body)

    async def ack(self, req: Request, resp: Response, job_id: str) -> None:
        command = bodies.ack_command(job_id, await bodies.read_body(req, bodies.BODY_BYTES_MAX))
        try:
            await self._engine.ack(req.context.principal, command)
        except (JobNotFound, NotAckable, LeaseLost) as error:
            raise _ack_refused(error) from None
        resp.status = 200

    async def ack_many(self, req: Request, resp: Response) -> None:
        commands = bodies.ack_many_commands(await bodies.read_body(req, self._batch_bytes_max))
        refusals = await self._engine.ack_many(req.context.principal, commands)
        resp.content_type = JSON
        resp.data = answers.acks_answered(
            [command.job_id for command in commands],
            [refusal and _ack_refused(refusal) for refusal in refusals],
        )

    async def extend(self, req: Request, resp: Response, job_id: str) -> None:
        fields = bodies.extend_fields(await bodies.read_body(req, bodies.SMALL_BODY_BYTES_MAX))
        lease_ms = fields.lease_ms or self._engine.options.lease_ms
        try:
            until_us = await self._engine.extend(job_id, fields.lease_token, lease_ms)
        except (JobNotFound, LeaseLost) as error:
            raise Refused("failed to extend lease", error) from None
        resp.content_type = JSON
        resp.data = answers.lease_extended(job_id, until_us)

    async def show(self, req: Request, resp: Response, job_id: str) -> None:
        try:
            job = await self._engine.job(req.context.principal, job_id)
        except JobNotFound as error:
            raise Refused("job not found", error) from None
        resp.content_type = JSON
        resp.data = answers.job_shown(job)

    def routes(self) -> list[Route]:
        return [*self._submit_and_read(), *self._work()]

    def _submit_and_read(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/jobs",
                "jobs:submit",
                self.submit,
                "Store a job",
                (Answer(201, "the job is on stable storage", answers.JobCreated), *CHANGES, BEHIND),
                bodies.SubmitBody,
            ),
            Route(
                "POST",
                "/jobs/batch",
                "jobs:submit",
                self.submit_many,
                "Store jobs, all of them or none",
                (
                    Answer(201, "all jobs are on stable storage", answers.JobsCreated),
                    *CHANGES,
                    BEHIND,
                ),
                bodies.SubmitManyBody,
            ),
            Route(
                "GET",
                "/jobs/{job_id}",
                "jobs:read",
                self.show,
                "Look at a job",
                (
                    Answer(200, "the job as it is", answers.JobShown),
                    Answer(404, "no such job, or one of another owner", answers.Failure),
                ),
            ),
        ]

    def _work(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/jobs/lease",
                "jobs:lease",
                self.lease,
                "Lease the next job",
                (
                    Answer(200, "the job is leased; with `max`: the jobs", (answers.JobLeased, answers.JobsLeased)),
                    Answer(404, "no job is ready", answers.Failure),
                    *CHANGES,
                ),
                bodies.LeaseBody,
                body_optional=True,
            ),
            Route(
                "POST",
                "/jobs/{job_id}/ack",
                "jobs:ack",
                self.ack,
                "End an attempt",
                (
                    Answer(200, "the end of the attempt is on stable storage; the body is empty"),
                    Answer(409, "the lease is lost: it ran out, or the token is an earlier one's", answers.Failure),
                    *CHANGES,
                ),
                bodies.AckBody,
                body_optional=True,
            ),
            Route(
                "POST",
                "/jobs/ack",
                "jobs:ack",
                self.ack_many,
                "End attempts",
                (
                    Answer(200, "each is answered; what was accepted is on stable storage", answers.AcksAnswered),
                    *CHANGES,
                ),
                bodies.AckManyBody,
            ),
            Route(
                "POST",
                "/jobs/{job_id}/extend",
                "jobs:ack",
                self.extend,
                "Let a lease last longer",
                (
                    Answer(200, "the lease lasts until then", answers.LeaseExtended),
                    Answer(404, "no such job", answers.Failure),
                    Answer(409, "the lease is lost: it ran out, or the token is an earlier one's", answers.Failure),
                    *CHANGES,
                ),
                bodies.ExtendBody,
            ),
        ]
