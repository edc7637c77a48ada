"""What programs use a server with. It knows the API, and nothing of how the server does it."""

from __future__ import annotations

from fastq.sdk.async_client import AsyncClient
from fastq.sdk.client import Client
from fastq.sdk.errors import (
    BadRequest,
    Busy,
    ClientError,
    Conflict,
    Forbidden,
    LeaseGone,
    LeaseLost,
    NotFinished,
    NotFound,
    Refused,
    ServerUnreachable,
    Unauthenticated,
)
from fastq.sdk.models import (
    Ack,
    Acked,
    Backoff,
    Cron,
    Done,
    Extend,
    Failure,
    Held,
    JobStatus,
    LeasedJob,
    NewJob,
    Schedule,
    Snooze,
    Submitted,
    Success,
)
from fastq.sdk.protocol import Retries
from fastq.sdk.worker import Job, Worker

__all__ = [
    "Ack", "Acked", "AsyncClient", "Backoff", "BadRequest", "Busy", "Client", "ClientError", "Conflict", "Cron", "Done",
    "Extend", "Failure", "Forbidden", "Held", "Job", "JobStatus", "LeaseGone", "LeaseLost", "LeasedJob", "NewJob",
    "NotFinished", "NotFound", "Refused", "Retries", "Schedule", "ServerUnreachable", "Snooze", "Submitted", "Success",
    "Unauthenticated", "Worker",
]  # fmt: skip
