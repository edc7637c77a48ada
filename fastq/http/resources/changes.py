"""What is done to one job from outside: cancel, redrive, edit, delete."""

from __future__ import annotations

from falcon.asgi import Request, Response

from fastq.engine import Engine
from fastq.http.decoding import read_body
from fastq.http.errors import JSON
from fastq.http.resources import answers, change_bodies, job_answers
from fastq.http.resources.bodies import BODY_BYTES_MAX, SMALL_BODY_BYTES_MAX
from fastq.http.resources.jobs import ABSENT, BEHIND_OR_FULL, CHANGES
from fastq.http.routes import Answer, Route

RUNS = Answer(409, "the job runs", answers.Failure)
CHANGED = Answer(200, "the change is on stable storage", job_answers.JobChanged)


class Changes:
    """A client changes its own owner's jobs, an admin all."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def cancel(self, req: Request, resp: Response, job_id: str) -> None:
        force = change_bodies.cancel_force(await read_body(req, SMALL_BODY_BYTES_MAX))
        state = self._engine.cancel(req.context.principal, job_id, force)
        resp.content_type = JSON
        resp.data = job_answers.job_changed(job_id, state)

    async def redrive(self, req: Request, resp: Response, job_id: str) -> None:
        state = self._engine.redrive(req.context.principal, job_id)
        resp.content_type = JSON
        resp.data = job_answers.job_changed(job_id, state)

    async def edit(self, req: Request, resp: Response, job_id: str) -> None:
        edit = change_bodies.edit_command(await read_body(req, BODY_BYTES_MAX), self._engine.now_us())
        state = await self._engine.edit(req.context.principal, job_id, edit)
        resp.content_type = JSON
        resp.data = job_answers.job_changed(job_id, state)

    async def delete(self, req: Request, resp: Response, job_id: str) -> None:
        self._engine.delete(req.context.principal, job_id)
        resp.content_type = JSON
        resp.data = job_answers.job_deleted(job_id)

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/jobs/{job_id}/cancel",
                "jobs:submit",
                self.cancel,
                "End a job that is wanted no more",
                (
                    Answer(200, "CANCELLED, or RUNNING: its worker is told", job_answers.JobChanged),
                    ABSENT,
                    Answer(409, "the job is finished", answers.Failure),
                    *CHANGES,
                ),
                change_bodies.CancelBody,
                body_optional=True,
            ),
            Route(
                "POST",
                "/jobs/{job_id}/redrive",
                "jobs:submit",
                self.redrive,
                "Let a dead letter run again, its attempts counted from 0",
                (
                    CHANGED,
                    ABSENT,
                    Answer(409, "the job is not DEAD, or another one has its unique key", answers.Failure),
                    *CHANGES,
                ),
            ),
            Route(
                "PATCH",
                "/jobs/{job_id}",
                "jobs:submit",
                self.edit,
                "Change a job that waits, or a dead letter",
                (
                    CHANGED,
                    ABSENT,
                    Answer(409, "the job runs or is finished, or another one has its unique key", answers.Failure),
                    *CHANGES,
                    BEHIND_OR_FULL,
                ),
                change_bodies.EditBody,
            ),
            Route(
                "DELETE",
                "/jobs/{job_id}",
                "jobs:submit",
                self.delete,
                "Remove a job that does not run",
                (Answer(200, "it is gone", job_answers.JobDeleted), ABSENT, RUNS, *CHANGES),
            ),
        ]
