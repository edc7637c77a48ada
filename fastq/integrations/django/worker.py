"""Runs the tasks of a backend. Each runs in a thread, as Django requires for database access."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from traceback import format_exception
from typing import Any

import msgspec
from django.db import close_old_connections

from fastq.client.codec import CODEC, encoded
from fastq.client.errors import Interrupted, LeaseGone
from fastq.client.job import Job
from fastq.client.models import NewJob
from fastq.client.outcome_models import Failure, Snooze, Success
from fastq.client.outcomes import class_name, text_of
from fastq.client.worker import Worker
from fastq.clock import wall_us
from fastq.integrations.django.backend import FastqBackend, Payload, Raised, fill, normalized, result_of, shown, task_of
from fastq.integrations.django.compat import (
    Task,
    TaskContext,
    TaskError,
    TaskResult,
    TaskResultStatus,
    task_finished,
    task_started,
)

TRACEBACK_CHARACTERS = 64 << 10  # kept from its end


def worker_of(backend: FastqBackend, *, queues: Sequence[str] | None = None, **options: Any) -> Worker:
    """A worker for the tasks of a backend. An async task runs in a thread too, in an event loop of its own.

    Args:
        queues: in strict order. Default: all queues of the backend.
        options: as for `fastq.Worker`.
    """
    url, key = backend.options.get("URL"), backend.options.get("KEY")
    own = queues or sorted(backend.queues) or ["default"]
    worker = Worker(url=url, key=key, queues=own, **options)
    for queue in own:
        worker.handles(queue)(partial(run, backend, worker.worker_id))
    return worker


def run(backend: FastqBackend, worker_id: str, job: Job[Any]) -> Any:
    """The handler of all queues."""
    close_old_connections()
    try:
        return _run_task(backend, worker_id, job)
    finally:
        close_old_connections()


def _run_task(backend: FastqBackend, worker_id: str, job: Job[Any]) -> Any:
    leased = job.leased
    try:
        payload = msgspec.convert(job.payload, Payload)
        task = task_of(payload, backend.alias, job.queue, leased.priority, None)
    except (ImportError, ValueError) as error:
        return Failure(error=f"the payload is not a known task: {error}", code="unknown_task", discard=True)
    result = result_of(backend, task, payload, job.job_id, TaskResultStatus.RUNNING, shown(leased.created_at))
    fill(result, started_at=_now(), last_attempted_at=_now(), worker_ids=[""] * (job.attempt - 1) + [worker_id])
    task_started.send(type(backend), task_result=result)
    args = (TaskContext(task_result=result), *result.args) if task.takes_context else result.args
    try:
        given, then = _called(task, args, result.kwargs)
        value = normalized(given, "result")
        encoded(CODEC, value, "result")  # before the signal says that the task has succeeded
    except (LeaseGone, Interrupted, Snooze):
        raise
    except BaseException as error:  # noqa: BLE001 -- a task raises anything, also what ends a process
        return _failed(backend, job, result, error)
    fill(result, finished_at=_now(), status=TaskResultStatus.SUCCESSFUL, _return_value=value)
    task_finished.send(type(backend), task_result=result)
    return Success(value, then) if then else value


def _called(task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Sequence[NewJob]]:
    """What the task returns, and follow-up jobs if it raises `Success`. Raises what else it raises.

    A fork of the task ends: its parent tells the outcome.
    """
    process = os.getpid()
    try:
        return task.call(*args, **kwargs), ()
    except Success as success:
        return success.result, success.then
    finally:
        if os.getpid() != process:
            os._exit(0)


def _failed(backend: FastqBackend, job: Job[Any], result: TaskResult[Any], error: BaseException) -> Failure:
    """The failure of an attempt. The task has failed only if it was the last attempt."""
    name, kind = class_name(error), type(error)
    path = f"{kind.__module__}.{kind.__qualname__}"
    raised = Raised(path, _traceback(error))
    result.errors.append(TaskError(exception_class_path=raised.exception, traceback=raised.traceback))
    failure = error if isinstance(error, Failure) else Failure(f"{path}: {text_of(error)}", code=name)
    if job.is_last_attempt or failure.discard:
        fill(result, finished_at=_now(), status=TaskResultStatus.FAILED)
        task_finished.send(type(backend), task_result=result)
    return Failure(
        failure.error, code=failure.code, retry_after_ms=failure.retry_after_ms, discard=failure.discard, result=raised
    )


def _traceback(error: BaseException) -> str:
    try:
        text = "".join(format_exception(error))
    except Exception:  # noqa: BLE001 -- the exception hides what it is
        return ""
    return text[-TRACEBACK_CHARACTERS:].encode(errors="backslashreplace").decode()


def _now() -> datetime:
    return shown(datetime.fromtimestamp(wall_us() / 1e6, UTC))
