"""fastq: a durable job queue server, and what programs use it with.

The names of the SDK are imported when they are first asked for: the server needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastq.client import (
        Ack,
        Acked,
        AsyncClient,
        Attempt,
        AuditEntry,
        Backoff,
        BadRequest,
        Busy,
        ChangedMany,
        Client,
        ClientError,
        Conflict,
        Cron,
        Done,
        Event,
        Every,
        Extend,
        Failure,
        FailureGroup,
        Failures,
        Forbidden,
        Held,
        Job,
        JobChanges,
        JobFilter,
        JobOptions,
        JobStatus,
        Key,
        LeasedJob,
        LeaseGone,
        LeaseLost,
        NewJob,
        NotFinished,
        NotFound,
        NotJSON,
        Outcome,
        Page,
        Progress,
        Queue,
        QueueSettings,
        RateLimit,
        Refused,
        Retention,
        Retries,
        RevokedKey,
        Schedule,
        SeenWorkers,
        ServerUnreachable,
        Snooze,
        Stats,
        Submitted,
        Success,
        Unauthenticated,
        Why,
        Worker,
    )

__version__ = "0.1.0"

__all__ = [
    "Ack", "Acked", "AsyncClient", "Attempt", "AuditEntry", "Backoff", "BadRequest", "Busy", "ChangedMany", "Client",
    "ClientError", "Conflict", "Cron", "Done", "Event", "Every", "Extend", "Failure", "FailureGroup", "Failures",
    "Forbidden", "Held", "Job",
    "JobChanges", "JobFilter", "JobOptions", "JobStatus", "Key", "LeaseGone", "LeaseLost", "LeasedJob", "NewJob",
    "NotFinished", "NotFound", "NotJSON", "Outcome", "Page", "Progress", "Queue", "QueueSettings", "RateLimit",
    "Refused", "Retention", "Retries", "RevokedKey", "Schedule", "SeenWorkers", "ServerUnreachable", "Snooze", "Stats",
    "Submitted", "Success", "Unauthenticated", "Why", "Worker", "__version__",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("fastq.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
