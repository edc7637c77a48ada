"""The task backend: an enqueued task is a job, and its result is the job's result."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from django.utils.module_loading import import_string

from fastq.client.codec import DEPTH_MAX
from fastq.client.errors import NotFound, NotJSON
from fastq.client.models import JobOptions, JobStatus
from fastq.client.protocol import Call
from fastq.client.round_trip import find_misfit
from fastq.client.sync_client import Client
from fastq.clock import wall_us
from fastq.integrations.django.compat import (
    BaseTaskBackend,
    InvalidTask,
    Task,
    TaskError,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    normalize_json,
    task_enqueued,
)

QUEUE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
OPTIONS = {"URL", "KEY", "MAX_RETRIES"}
NOT_COUNTED = {"released", "snoozed"}  # outcomes of attempts
STATUS = {"RUNNING": TaskResultStatus.RUNNING, "ACKED": TaskResultStatus.SUCCESSFUL}
STATUS |= dict.fromkeys(("DEAD", "CANCELLED", "EXPIRED"), TaskResultStatus.FAILED)


class Payload(msgspec.Struct):
    """The payload of a task's job. task: the import path."""

    task: str
    args: list[Any]
    kwargs: dict[str, Any]


class Raised(msgspec.Struct):
    """The result of a failed task. exception: the import path of its class."""

    exception: str
    traceback: str


class Attempt(msgspec.Struct):
    """An attempt that has ended."""

    outcome: str
    leased_at: datetime
    ended_at: datetime
    worker_id: str = ""
    error: str = ""


class _Attempts(msgspec.Struct):
    attempts: list[Attempt]


@lru_cache(maxsize=64)
def client_of(url: str | None, key: str | None) -> Client:
    """The client of all threads. Django makes a backend for each thread."""
    return Client(url, key)


class FastqBackend(BaseTaskBackend):
    """OPTIONS: URL and KEY, default FASTQ_URL and FASTQ_KEY; MAX_RETRIES, 0 to 1,000, default the server's."""

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        if unknown := set(self.options) - OPTIONS:
            raise ImproperlyConfigured(
                f"TASKS[{alias!r}]: unknown option {min(unknown)}; known: {', '.join(sorted(OPTIONS))}"
            )

    @property
    def client(self) -> Client:
        return client_of(self.options.get("URL"), self.options.get("KEY"))

    def validate_task(self, task: Task[..., Any]) -> None:
        super().validate_task(task)
        if not QUEUE_NAME.fullmatch(task.queue_name):
            raise InvalidTask(f"Queue '{task.queue_name}' must be 1 to 64 of A-Z a-z 0-9 . _ -")

    # --- enqueue ------------------------------------------------------------------------------------------------------

    def enqueue(self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult[Any]:
        result = self._submitted(task, args, kwargs)
        task_enqueued.send(type(self), task_result=result)
        return result

    async def aenqueue(self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult[Any]:
        result = await sync_to_async(self._submitted, thread_sensitive=False)(task, args, kwargs)
        await sync_to_async(task_enqueued.send)(type(self), task_result=result)
        return result

    def _submitted(self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult[Any]:
        self.validate_task(task)
        payload = Payload(task.module_path, normalized(list(args), "args"), normalized(dict(kwargs), "kwargs"))
        options: JobOptions = {"queue": task.queue_name, "priority": int(task.priority)}
        if task.run_after is not None:
            options["run_at"] = task.run_after if timezone.is_aware(task.run_after) else _aware(task.run_after)
        if "MAX_RETRIES" in self.options:
            options["max_retries"] = self.options["MAX_RETRIES"]
        submitted = self.client.submit(payload, **options)
        enqueued_at = shown(datetime.fromtimestamp(wall_us() / 1e6, UTC))
        return result_of(self, task, payload, submitted.job_id, TaskResultStatus.READY, enqueued_at)

    # --- results ------------------------------------------------------------------------------------------------------

    def get_result(self, result_id: str) -> TaskResult[Any]:
        """Raises TaskResultDoesNotExist: there is no such job, it is not a task, or the task cannot be imported."""
        try:
            job = self.client.get(result_id, with_payload=True)
            attempts = self._attempts(job) if job.attempts else []
        except NotFound:
            raise TaskResultDoesNotExist(result_id) from None
        try:
            payload = msgspec.convert(job.payload, Payload)
            task = task_of(payload, self.alias, job.queue, job.priority, job.run_at)
        except (ValueError, ImportError) as error:
            raise TaskResultDoesNotExist(f"{result_id}: {error}") from error
        status = STATUS.get(job.state, TaskResultStatus.READY)
        result = result_of(self, task, payload, job.job_id, status, shown(job.created_at))
        _fill(result, job, attempts)
        return result

    async def aget_result(self, result_id: str) -> TaskResult[Any]:
        result: TaskResult[Any] = await sync_to_async(self.get_result, thread_sensitive=False)(result_id)
        return result

    def _attempts(self, job: JobStatus) -> list[Attempt]:
        """The attempts that have ended, oldest first. The server keeps the last 20."""
        path = f"/jobs/{job.job_id}/attempts"
        answer = self.client.call(Call("GET", path, msgspec.json.Decoder(_Attempts).decode))
        return answer.attempts[::-1]


def task_of(payload: Payload, alias: str, queue: str, priority: int, run_after: datetime | None) -> Task[..., Any]:
    """The task of a payload, with the options of its job. Raises ImportError, ValueError."""
    task = import_string(payload.task)
    if not isinstance(task, Task):
        raise ValueError(f"{payload.task} is not a task")
    run_after = None if run_after is None else shown(run_after)
    return task.using(priority=priority, queue_name=queue, run_after=run_after, backend=alias)


def result_of(
    backend: FastqBackend, task: Task[..., Any], payload: Payload, job_id: str, status: Any, enqueued_at: datetime
) -> TaskResult[Any]:  # fmt: skip
    """A result without attempts. status: a TaskResultStatus."""
    return TaskResult(
        task=task, id=job_id, status=status, enqueued_at=enqueued_at, started_at=None, finished_at=None,
        last_attempted_at=None, args=payload.args, kwargs=payload.kwargs, backend=backend.alias, errors=[],
        worker_ids=[],
    )  # fmt: skip


def normalized(value: Any, place: str) -> Any:
    """The value as JSON types, by Django's rules. Raises NotJSON, which names the place."""
    try:
        return normalize_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        try:
            find_misfit(value, DEPTH_MAX)
        except NotJSON as misfit:
            raise misfit.within(place) from error
        raise NotJSON(*_unsupported(value, place)) from error


def _unsupported(value: Any, place: str) -> tuple[str, str]:
    """The place of a part that Django does not normalize, and why."""
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        parts = enumerate(value)
    for key, part in parts:
        try:
            normalize_json(part)
        except (TypeError, ValueError):
            return _unsupported(part, f"{place}[{key!r}]")
    return place, f"{type(value).__qualname__} has no JSON form in Django: {value!r:.60}"


def fill(result: TaskResult[Any], **fields: Any) -> None:
    """Set fields of a TaskResult, which is a frozen dataclass."""
    for name, value in fields.items():
        object.__setattr__(result, name, value)


def _fill(result: TaskResult[Any], job: JobStatus, attempts: list[Attempt]) -> None:
    """Fill in what the attempts show. The server does not show when a running attempt began."""
    counted = [attempt for attempt in attempts if attempt.outcome not in NOT_COUNTED]
    result.worker_ids.extend(attempt.worker_id for attempt in counted)
    if job.state == "RUNNING":
        result.worker_ids.append(job.worker_id)
    result.errors.extend(_error(attempt) for attempt in attempts if attempt.error)
    if attempts:
        fill(result, started_at=shown(attempts[0].leased_at), last_attempted_at=shown(attempts[-1].leased_at))
        if job.is_complete:
            fill(result, finished_at=shown(attempts[-1].ended_at))
    if job.is_successful:
        fill(result, _return_value=job.result)
    elif result.errors and job.result is not None:
        raised = job.result_as(Raised)
        result.errors[-1] = TaskError(exception_class_path=raised.exception, traceback=raised.traceback)


def _error(attempt: Attempt) -> TaskError:
    """The error of an attempt. The server keeps its message; only the last attempt has a traceback."""
    path, colon, _ = attempt.error.partition(": ")
    is_path = bool(colon) and all(part.isidentifier() for part in path.split("."))
    return TaskError(exception_class_path=path if is_path else "builtins.RuntimeError", traceback=attempt.error)


def shown(at: datetime) -> datetime:
    """A time for Django: aware, or naive in the zone of the settings if USE_TZ is false."""
    return at if settings.USE_TZ else timezone.make_naive(at)


def _aware(at: datetime) -> datetime:
    aware: datetime = timezone.make_aware(at)
    return aware
