"""The job that a handler receives."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, MutableMapping
from typing import Any, Generic, Literal, TypeVar

from fastq.client.errors import LeaseGone
from fastq.client.models import LeasedJob

T = TypeVar("T")
Cut = Literal["cancelled", "lost", "time_limit", "released"]
Report = Callable[[LeasedJob, int, str], None]
"""Sends a progress report: the job, percent, a note."""

NOTE_BYTES_MAX = 200

WHY: dict[Cut, str] = {
    "cancelled": "the job was cancelled",
    "lost": "the lease is lost; another worker may have the job",
    "time_limit": "the attempt exceeded its time limit",
    "released": "the worker is stopping and released the job",
}


class Job(Generic[T]):
    """A leased job: the decoded payload, its attributes, and whether to go on with it.

    When the job is cancelled, its lease lost, or its time limit exceeded, an async handler is cancelled and a child
    process is killed. A thread cannot be stopped: its handler reads `cut`, calls `check` or waits in `wait_cut`.

    Attributes:
        payload: an instance of the payload type of the handler.
        leased: the job as the server sent it, with the lease token.
        cut: why the handler should stop: `cancelled`, `lost`, `time_limit` or `released`; None while it should go on.
    """

    def __init__(self, leased: LeasedJob, payload: T, logger: logging.Logger, report: Report) -> None:
        self.leased = leased
        self.payload = payload
        self.cut: Cut | None = None
        self._logger, self._report = logger, report

    def __repr__(self) -> str:
        return f"<Job {self.job_id} of {self.queue}, attempt {self.attempt}>"

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """The worker's logger. Its lines begin with the job's id, and its records have the attribute `job_id`."""
        return _JobLog(self._logger, {"job_id": self.leased.job_id})

    @property
    def job_id(self) -> str:
        return self.leased.job_id

    @property
    def queue(self) -> str:
        return self.leased.queue

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self.leased.attempt

    @property
    def is_last_attempt(self) -> bool:
        """Whether the job is DEAD if this attempt fails."""
        return self.attempt >= self.leased.max_retries

    def check(self) -> None:
        """Raises LeaseGone if the handler should stop."""
        if self.cut is not None:
            raise LeaseGone(WHY[self.cut])

    def wait_cut(self, seconds: float | None = None) -> bool:
        """For threads: wait until the handler should stop. Returns False if `seconds` pass first."""
        event: threading.Event = self.__dict__.setdefault("_waited_for", threading.Event())  # atomic, for threads
        return self.cut is not None or event.wait(seconds)

    def progress(self, percent: int, note: str = "") -> None:
        """Report progress without waiting for the answer. Thread-safe.

        Only the newest report counts: one that comes while another is sent replaces those that wait. The last one is
        sent before the outcome. After the end of the attempt reports are ignored.

        Args:
            percent: a number; below 0 it counts as 0, above 100 as 100.
            note: text for people; its first 200 bytes are kept.
        """
        kept = str(note).encode(errors="backslashreplace")[:NOTE_BYTES_MAX].decode(errors="ignore")
        self._report(self.leased, max(0, min(100, int(percent))), kept)

    def end(self, why: Cut) -> None:
        """Set `cut`. Called by the worker. A cancel may be followed by a stronger reason."""
        self.cut = self.cut if self.cut not in (None, "cancelled") else why
        if (event := self.__dict__.get("_waited_for")) is not None:
            event.set()


class _JobLog(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return f"job {kwargs['extra']['job_id']}: {msg}", kwargs
