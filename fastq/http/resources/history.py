"""The history of a job: its attempts, and all its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from falcon.asgi import Request, Response
from msgspec import UNSET, UnsetType

from fastq.engine import Engine
from fastq.engine.results import JobHistory
from fastq.http.fields import EventName, Outcome, Time
from fastq.http.reply import JSON, encode, time_of
from fastq.http.routes import ABSENT, Answer, Route

if TYPE_CHECKING:
    from fastq._core import Event

BY_EXPIRY = ("lease_expired", "poisoned")


class AttemptShown(msgspec.Struct, forbid_unknown_fields=True):
    """An attempt that ended. `number` counts every lease of the job."""

    number: int
    outcome: Outcome
    leased_at: Time
    ended_at: Time
    worker_id: str | UnsetType = UNSET
    error: str | UnsetType = UNSET
    error_code: str | UnsetType = UNSET


class AttemptsShown(msgspec.Struct, forbid_unknown_fields=True):
    """The last 20 attempts, the newest first."""

    job_id: str
    attempts: list[AttemptShown]


class EventShown(msgspec.Struct, forbid_unknown_fields=True):
    """An event. `by` is the id of the key, `system:expiry` for a lease or job that expired, else `system`."""

    what: EventName
    at: Time
    by: str
    number: int | UnsetType = UNSET
    outcome: Outcome | UnsetType = UNSET
    error: str | UnsetType = UNSET
    error_code: str | UnsetType = UNSET


class HistoryShown(msgspec.Struct, forbid_unknown_fields=True):
    """The last 50 events and the submit, the newest first."""

    job_id: str
    events: list[EventShown]


def attempts_shown(history: JobHistory) -> bytes:
    attempts = [_attempt(event) for event in history.events if event.what == "attempt"]
    return encode({"job_id": history.job_id, "attempts": attempts})


def _attempt(event: Event) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "number": event.number,
        "outcome": event.outcome,
        "leased_at": time_of(event.leased_us),
        "ended_at": time_of(event.at_us),
    }
    return answer | ({"worker_id": event.worker_id} if event.worker_id else {}) | _errors(event)


def _errors(event: Event) -> dict[str, str]:
    found = {"error": event.error, "error_code": event.error_code}
    return {name: text for name, text in found.items() if text}


def history_shown(history: JobHistory) -> bytes:
    events: list[dict[str, Any]] = []
    for event in history.events:
        by = event.key_id or ("system:expiry" if event.what == "expired" or event.outcome in BY_EXPIRY else "system")
        shown: dict[str, Any] = {"what": event.what, "at": time_of(event.at_us), "by": by}
        if event.what == "attempt":
            shown |= {"number": event.number, "outcome": event.outcome} | _errors(event)
        events.append(shown)
    events.append({"what": "submitted", "at": time_of(history.created_us), "by": history.key_id or "system"})
    return encode({"job_id": history.job_id, "events": events})


class Histories:
    """The responders of GET /jobs/{job_id}/attempts and GET /jobs/{job_id}/history."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def attempts(self, req: Request, resp: Response, job_id: str) -> None:
        resp.data = attempts_shown(await self._engine.history(req.context.principal, job_id))
        resp.content_type = JSON

    async def history(self, req: Request, resp: Response, job_id: str) -> None:
        resp.data = history_shown(await self._engine.history(req.context.principal, job_id))
        resp.content_type = JSON

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/jobs/{job_id}/attempts",
                "jobs:read",
                self.attempts,
                "The last attempts of a job",
                (Answer(200, "the attempts that ended", AttemptsShown), ABSENT),
            ),
            Route(
                "GET",
                "/jobs/{job_id}/history",
                "jobs:read",
                self.history,
                "The last events of a job, and who caused them",
                (Answer(200, "the events", HistoryShown), ABSENT),
            ),
        ]
