"""What workers ask: lease, ack, extend, heartbeat, progress, transactions."""

from __future__ import annotations

from functools import partial

from falcon.asgi import Request, Response

from fastq.engine import Engine
from fastq.engine.commands import BATCH_BYTES_MAX
from fastq.errors import ApiError, CleanerBehind, JobNotFound, LeaseLost, NoJobsAvailable, NotAckable, Refused
from fastq.http.decoding import read_body
from fastq.http.errors import JSON
from fastq.http.lane.granted import GRANTED
from fastq.http.resources import answers, work_bodies
from fastq.http.resources.bodies import BODY_BYTES_MAX, SMALL_BODY_BYTES_MAX, traceparent_of
from fastq.http.resources.jobs import ABSENT, BEHIND_OR_FULL, CHANGES, CONNECTION, KEY_USED, idempotency_key_of
from fastq.http.routes import Answer, Route

HEARTBEAT_BYTES_MAX = 4 << 20
LOST = Answer(409, "the lease is lost: it ran out, or the token is an earlier one's", answers.Failure)


def ack_refused(error: ApiError) -> Refused:
    """In the original's words; it has no 404 here."""
    return Refused("failed to ack job", error, status=400 if isinstance(error, JobNotFound) else None)


class Work:
    """The responders of what is done to a job that a worker has, or wants."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._batch_bytes_max = min(BATCH_BYTES_MAX, engine.record_bytes_max // 2)

    async def lease(self, req: Request, resp: Response) -> None:
        body = await read_body(req, SMALL_BODY_BYTES_MAX)
        command, many = work_bodies.lease_command(body)
        connection = req.scope.get(CONNECTION)
        granted = req.scope.get(GRANTED)
        if granted is not None:
            leased = await self._engine.deliver(granted.take(), connection)
        else:
            leased = await self._engine.lease(req.context.principal, command, connection)
        if not leased and not many:
            raise Refused("no jobs available", NoJobsAvailable())
        resp.context.undo = partial(self._engine.take_back, leased)
        resp.content_type = JSON
        if many:
            resp.data = answers.jobs_leased(leased)
        else:
            resp.data = answers.job_leased(leased[0], payload_as_string=not command.had_body)

    async def ack(self, req: Request, _resp: Response, job_id: str) -> None:
        command = work_bodies.ack_command(job_id, await read_body(req, BODY_BYTES_MAX))
        try:
            self._engine.ack(req.context.principal, command)
        except (JobNotFound, NotAckable, LeaseLost) as error:
            raise ack_refused(error) from None

    async def ack_many(self, req: Request, resp: Response) -> None:
        commands = work_bodies.ack_many_commands(await read_body(req, self._batch_bytes_max))
        refusals = self._engine.ack_many(req.context.principal, commands)
        resp.content_type = JSON
        resp.data = answers.acks_answered(
            [command.job_id for command in commands],
            [refusal and ack_refused(refusal) for refusal in refusals],
        )

    async def extend(self, req: Request, resp: Response, job_id: str) -> None:
        fields = work_bodies.extend_fields(await read_body(req, SMALL_BODY_BYTES_MAX))
        leases = [(job_id, fields.lease_token)]
        (extended,) = self._engine.extend(req.context.principal, leases, fields.lease_ms or 0)
        if isinstance(extended, ApiError):
            raise Refused("failed to extend lease", extended)
        resp.content_type = JSON
        resp.data = answers.lease_extended(job_id, extended)

    async def heartbeat(self, req: Request, resp: Response) -> None:
        fields = work_bodies.heartbeat_fields(await read_body(req, HEARTBEAT_BYTES_MAX))
        self._engine.last_seen.note(fields.worker_id, self._engine.now_us())
        leases = [(lease.job_id, lease.lease_token) for lease in fields.leases]
        answered = self._engine.extend(req.context.principal, leases, fields.lease_ms or 0)
        resp.content_type = JSON
        resp.data = answers.leases_answered([job_id for job_id, _ in leases], answered)

    async def progress(self, req: Request, resp: Response, job_id: str) -> None:
        fields = work_bodies.progress_fields(await read_body(req, SMALL_BODY_BYTES_MAX))
        who = req.context.principal
        cancel = self._engine.report(who, job_id, fields.lease_token, fields.percent, fields.note)
        resp.content_type = JSON
        resp.data = answers.progress_noted(job_id, cancel)

    async def transact(self, req: Request, resp: Response) -> None:
        body = await read_body(req, self._batch_bytes_max)
        transaction = work_bodies.transaction_command(
            body, self._engine.now_us(), idempotency_key_of(req), traceparent_of(req.get_header("traceparent"))
        )
        who = req.context.principal
        try:
            answered, _ = self._engine.transact(who, transaction)
        except CleanerBehind:
            await self._engine.cleaner_caught_up()
            answered, _ = self._engine.transact(who, transaction)
        resp.content_type = JSON
        resp.data = answers.transaction_done(transaction.ops, answered)

    def routes(self) -> list[Route]:
        return [*self._ends(), *self._meanwhile(), *self._together()]

    def _ends(self) -> list[Route]:
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
                work_bodies.LeaseBody,
                body_optional=True,
                example={"queues": {"mail": 3, "film": 1}, "max": 10, "wait_ms": 20000, "worker_id": "w1"},
            ),
            Route(
                "POST",
                "/jobs/{job_id}/ack",
                "jobs:ack",
                self.ack,
                "End an attempt",
                (Answer(200, "the end of the attempt is on stable storage; the body is empty"), LOST, *CHANGES),
                work_bodies.AckBody,
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
                work_bodies.AckManyBody,
            ),
        ]

    def _meanwhile(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/jobs/{job_id}/extend",
                "jobs:ack",
                self.extend,
                "Let a lease last longer",
                (Answer(200, "the lease lasts until then", answers.LeaseExtended), ABSENT, LOST, *CHANGES),
                work_bodies.ExtendBody,
            ),
            Route(
                "POST",
                "/workers/heartbeat",
                "jobs:ack",
                self.heartbeat,
                "Let all leases of a worker last longer",
                (Answer(200, "for each its deadline, or why it is lost", answers.LeasesAnswered), *CHANGES),
                work_bodies.HeartbeatBody,
            ),
            Route(
                "POST",
                "/jobs/{job_id}/progress",
                "jobs:ack",
                self.progress,
                "Say how far an attempt has come",
                (Answer(200, "it is noted", answers.ProgressNoted), ABSENT, LOST, *CHANGES),
                work_bodies.ProgressBody,
            ),
        ]

    def _together(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/transactions",
                "jobs:ack",
                self.transact,
                "Ack, extend and submit, all of it or nothing",
                (
                    Answer(200, "all of it is on stable storage, each answered for itself", answers.TransactionDone),
                    ABSENT,
                    Answer(409, "a lease is lost, or an ack was accepted before", answers.Failure),
                    KEY_USED,
                    *CHANGES,
                    BEHIND_OR_FULL,
                ),
                work_bodies.TransactionBody,
                headers=("Idempotency-Key", "traceparent"),
            ),
        ]
