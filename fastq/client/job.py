"""A job in the hands of a handler."""

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
"""Has the server told how far a job has come."""

WHY: dict[Cut, str] = {
    "cancelled": "the job was cancelled",
    "lost": "the lease is lost: the job may run elsewhere",
    "time_limit": "the time limit is over",
    "released": "the worker stops, and somebody else gets the job",
}


class Job(Generic[T]):
    """What a handler gets: the payload, what the server told of the job, and whether it is still wanted.

    An async handler is cancelled when it is not, and one in a process is killed. One that runs in a thread cannot be:
    it asks `cut`, or calls `check`.
    """

    def __init__(self, leased: LeasedJob, payload: T, logger: logging.Logger, report: Report) -> None:
        self.leased = leased
        self.payload = payload
        self.cut: Cut | None = None
        """Why the work is not wanted any more; None while it is."""
        self._logger, self._report = logger, report

    def __repr__(self) -> str:
        return f"<Job {self.job_id} of {self.queue}, attempt {self.attempt}>"

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """Its lines begin with the job's id and have it as `job_id`."""
        return _JobLog(self._logger, {"job_id": self.leased.job_id})

    @property
    def job_id(self) -> str:
        return self.leased.job_id

    @property
    def queue(self) -> str:
        return self.leased.queue

    @property
    def attempt(self) -> int:
        """From 1."""
        return self.leased.attempt

    @property
    def is_last_attempt(self) -> bool:
        return self.attempt >= self.leased.max_retries

    def check(self) -> None:
        """Raises LeaseGone if the work is not wanted any more."""
        if self.cut is not None:
            raise LeaseGone(WHY[self.cut])

    def wait_cut(self, seconds: float | None = None) -> bool:
        """For threads: wait until the work is not wanted any more; False if that did not come within `seconds`."""
        event: threading.Event = self.__dict__.setdefault("_waited_for", threading.Event())  # in one step, for threads
        return self.cut is not None or event.wait(seconds)

    def progress(self, percent: int, note: str = "") -> None:
        """Have the server told, soon; from a thread too."""
        self._report(self.leased, percent, note)

    def end(self, why: Cut) -> None:
        """Called by the worker."""
        self.cut = self.cut if self.cut not in (None, "cancelled") else why
        if (event := self.__dict__.get("_waited_for")) is not None:
            event.set()


class _JobLog(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return f"job {kwargs['extra']['job_id']}: {msg}", kwargs
