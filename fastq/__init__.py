"""fastq: a durable job queue server, and what programs use it with.

The names of the SDK are imported when they are first asked for: the server needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastq.sdk import (
        Ack,
        Acked,
        AsyncClient,
        Backoff,
        BadRequest,
        Busy,
        Client,
        ClientError,
        Conflict,
        Cron,
        Done,
        Extend,
        Failure,
        Forbidden,
        Held,
        Job,
        JobStatus,
        LeasedJob,
        LeaseGone,
        LeaseLost,
        NewJob,
        NotFinished,
        NotFound,
        Refused,
        Retries,
        Schedule,
        ServerUnreachable,
        Snooze,
        Submitted,
        Success,
        Unauthenticated,
        Worker,
    )

__version__ = "0.1.0"

__all__ = [
    "Ack", "Acked", "AsyncClient", "Backoff", "BadRequest", "Busy", "Client", "ClientError", "Conflict", "Cron", "Done",
    "Extend", "Failure", "Forbidden", "Held", "Job", "JobStatus", "LeaseGone", "LeaseLost", "LeasedJob", "NewJob",
    "NotFinished", "NotFound", "Refused", "Retries", "Schedule", "ServerUnreachable", "Snooze", "Submitted", "Success",
    "Unauthenticated", "Worker", "__version__",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("fastq.sdk"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
