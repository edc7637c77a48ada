"""The Python SDK: clients, the worker, their models and errors. It imports nothing of the server."""

from __future__ import annotations

from fastq.client.async_client import AsyncClient
from fastq.client.errors import (
    BadRequest,
    Busy,
    ClientError,
    Conflict,
    Forbidden,
    LeaseGone,
    LeaseLost,
    NotFinished,
    NotFound,
    NotJSON,
    Refused,
    ServerUnreachable,
    Unauthenticated,
)
from fastq.client.models import (
    Ack,
    Acked,
    Attempt,
    Backoff,
    ChangedMany,
    Done,
    Event,
    Extend,
    Held,
    JobChanges,
    JobFilter,
    JobOptions,
    JobStatus,
    LeasedJob,
    NewJob,
    Page,
    Progress,
    Submitted,
    Why,
)
from fastq.client.operator_models import (
    AuditEntry,
    FailureGroup,
    Failures,
    Key,
    Queue,
    QueueSettings,
    RateLimit,
    Retention,
    RevokedKey,
    SeenWorkers,
)
from fastq.client.outcome_models import Failure, Outcome, Snooze, Success
from fastq.client.protocol import Retries
from fastq.client.schedule_models import Cron, Every, Schedule
from fastq.client.stats_models import Stats
from fastq.client.sync_client import Client
from fastq.client.worker import Job, Worker

__all__ = [
    "Ack", "Acked", "AsyncClient", "Attempt", "AuditEntry", "Backoff", "BadRequest", "Busy", "ChangedMany", "Client",
    "ClientError", "Conflict", "Cron", "Done", "Event", "Every", "Extend", "Failure", "FailureGroup", "Failures",
    "Forbidden", "Held", "Job",
    "JobChanges", "JobFilter", "JobOptions", "JobStatus", "Key", "LeaseGone", "LeaseLost", "LeasedJob", "NewJob",
    "NotFinished", "NotFound", "NotJSON", "Outcome", "Page", "Progress", "Queue", "QueueSettings", "RateLimit",
    "Refused", "Retention", "Retries", "RevokedKey", "Schedule", "SeenWorkers", "ServerUnreachable", "Snooze", "Stats",
    "Submitted", "Success", "Unauthenticated", "Why", "Worker",
]  # fmt: skip
