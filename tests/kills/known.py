"""One actor's knowledge of its jobs: the model of the core's tests, updated by the server's answers."""

from __future__ import annotations

import json
from typing import Any

from tests.core.model import Model, Server
from tests.core.model_jobs import Job, Refused

OWNER, KEY = "owner", "key"
FOR_EVER = Server(idempotency_us=1 << 60)

CODES = {
    "JobNotFound": "job_not_found",
    "JobFinished": "job_finished",
    "JobRunning": "job_running",
    "NotDead": "not_dead",
    "JobDuplicate": "duplicate",
    "LeaseLost": "lease_lost",
    "IdempotencyMismatch": "idempotency_mismatch",
}
"""The model's names -> the API's."""


class Known(Model):
    def __init__(self, server: Server = FOR_EVER) -> None:
        super().__init__(server)

    def grant(self, now_us: int, job_id: str, token: str, lease_ms: int) -> Job:
        """Note a lease that the server granted: the server chooses the job."""
        job = self.find(job_id)
        if not job.waits:
            raise Refused("JobRunning" if job.state == "RUNNING" else "JobFinished")
        self.order.leave(job)
        job.state, job.attempts, job.lease_no = "RUNNING", job.attempts + 1, job.lease_no + 1
        job.leased_us, job.granted_ms, job.lease_until_us = now_us, lease_ms, now_us + lease_ms * 1000
        job.token, job.tokens, job.progress = token, (*job.tokens, token), None
        return job


def shown(job: Job) -> dict[str, Any]:
    """The model's job in the form of `seen`, without times."""
    facts = {
        "state": job.state,
        "attempts": job.attempts,
        "max_retries": job.spec.max_retries,
        "priority": job.spec.priority,
        "queue": job.queue,
        "tags": list(job.spec.tags),
        "payload": json.loads(job.spec.payload),
        "outcome": job.outcome,
        "result": json.loads(job.result) if job.result is not None else None,
        "result_error": job.error,
        "cancel_requested": job.cancel_requested,
        "progress": None if job.progress is None else list(job.progress[:2]),
    }
    events = [(one.what, one.number, one.outcome, one.error, one.error_code) for one in job.shown_history()]
    return facts | {"history": events}


def seen(body: dict[str, Any], events: list[dict[str, Any]]) -> dict[str, Any]:
    """`GET /jobs/{id}?include=payload` and its history, without the submit."""
    progress = body.get("progress")
    facts = {
        "state": "READY" if body["state"] == "SCHEDULED" else body["state"],
        "progress": None if progress is None else [progress["percent"], progress.get("note", "")],
        "tags": body.get("tags", []),
        "outcome": body.get("outcome", ""),
        "result": body.get("result"),
        "result_error": body.get("result_error", ""),
        "cancel_requested": body.get("cancel_requested", False),
    }
    facts |= {name: body[name] for name in ("attempts", "max_retries", "priority", "queue", "payload")}
    assert events[-1]["what"] == "submitted", events
    history = [
        (one["what"], one.get("number", 0), one.get("outcome", ""), one.get("error", ""), one.get("error_code", ""))
        for one in events[:-1]
    ]
    return facts | {"history": history}


def difference(expected: dict[str, Any], found: dict[str, Any]) -> str:
    """The differences for a message; empty: none."""
    return ", ".join(
        f"{name} is {found[name]!r}, not {expected[name]!r}" for name in expected if expected[name] != found[name]
    )
