"""Jobs: submit, lease, ack, look."""

from __future__ import annotations

from falcon.asgi import Request, Response

from fastq.engine import Engine
from fastq.errors import JobNotFound, LeaseLost, NoJobsAvailable, NotAckable, Refused
from fastq.http import answers, bodies
from fastq.http.errors import JSON
from fastq.http.routes import DISK_FULL, TOO_MUCH, WITH_BODY, Answer, Route


class Jobs:
    """The responders of everything below /jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def submit(self, req: Request, resp: Response) -> None:
        body = await bodies.read_body(req, bodies.BODY_BYTES_MAX)
        command = bodies.submit_command(body, self._engine.now_us())
        job_id = await self._engine.submit(req.context.principal, command)
        resp.status = 201
        resp.content_type = JSON
        resp.data = answers.job_created(job_id)

    async def lease(self, req: Request, resp: Response) -> None:
        command = bodies.lease_command(await bodies.read_body(req, bodies.SMALL_BODY_BYTES_MAX))
        try:
            leased = await self._engine.lease(req.context.principal, command)
        except NoJobsAvailable as error:
            raise Refused("no jobs available", error) from None
        resp.content_type = JSON
        resp.data = answers.job_leased(leased, payload_as_string=not command.had_body)

    async def ack(self, req: Request, resp: Response, job_id: str) -> None:
        command = bodies.ack_command(job_id, await bodies.read_body(req, bodies.BODY_BYTES_MAX))
        try:
            await self._engine.ack(req.context.principal, command)
        except JobNotFound as error:  # the original has no 404 here
            raise Refused("failed to ack job", error, status=400) from None
        except (NotAckable, LeaseLost) as error:
            raise Refused("failed to ack job", error) from None
        resp.status = 200

    async def show(self, req: Request, resp: Response, job_id: str) -> None:
        try:
            job = await self._engine.job(req.context.principal, job_id)
        except JobNotFound as error:
            raise Refused("job not found", error) from None
        resp.content_type = JSON
        resp.data = answers.job_shown(job)

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/jobs",
                "jobs:submit",
                self.submit,
                "Store a job",
                (Answer(201, "the job is on stable storage", answers.JobCreated), *WITH_BODY, *TOO_MUCH, DISK_FULL),
                bodies.SubmitBody,
            ),
            Route(
                "POST",
                "/jobs/lease",
                "jobs:lease",
                self.lease,
                "Lease the next job",
                (
                    Answer(200, "the job is leased", answers.JobLeased),
                    Answer(404, "no job is ready", answers.Failure),
                    *WITH_BODY,
                    *TOO_MUCH,
                    DISK_FULL,
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
                    *WITH_BODY,
                    *TOO_MUCH,
                    DISK_FULL,
                ),
                bodies.AckBody,
                body_optional=True,
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
