"""A taskiq broker and result backend: a task and its result are one job of a fastq server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import inspect
import os
import sys
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET
from taskiq import AckableMessage, AsyncBroker, AsyncResultBackend, BrokerMessage, TaskiqMessage, TaskiqResult
from taskiq.formatters.proxy_formatter import ProxyFormatter

from fastq.client.async_client import AsyncClient
from fastq.client.codec import CODEC, encoded
from fastq.client.errors import NotJSON
from fastq.client.job import Job
from fastq.client.models import JobOptions, JobStatus, NewJob
from fastq.client.outcome_models import Failure, Snooze, Success
from fastq.client.outcomes import class_name, text_of
from fastq.client.worker import Worker
from fastq.integrations.taskiq_values import check, check_arguments, shown

Outcome: TypeAlias = Any  # the return value of a handler

TASKS_MAX = 100_000  # task ids whose job this process remembers
NEXT_JOB = "taskiq_next_job_id"
NEXT_MAX = 1000
"""A task that a middleware sends again gets another job; the result of the first job names it."""


class FastqBroker(AsyncBroker):
    """A broker that keeps tasks on a fastq server and hands them to taskiq's workers.

    It reads the labels `queue_name`, `priority` and `delay` (seconds). A task that raises becomes a dead letter with
    its error; with `retry_failed` the server retries it first. A task whose worker died runs again.
    """

    def __init__(
        self, url: str | None = None, key: str | None = None, *, queue: str = "taskiq", queues: list[str] | None = None,
        retry_failed: bool = False, max_retries: int | None = None, prefetch: int = 0, lease_ms: int = 30_000,
        stop_s: float = 30.0, task_id_generator: Callable[[], str] | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            url, key: as for `fastq.Client`.
            queue: for tasks without the label `queue_name`.
            queues: the queues that a worker leases from. Default: `queue`.
            retry_failed: retry tasks that raise, up to `max_retries` attempts.
            max_retries: attempts, 0 to 1,000. Default: the server's.
            prefetch: how many tasks a worker process leases beyond those that taskiq has asked for. It asks for
                --max-async-tasks and --max-prefetch.
            lease_ms: milliseconds, 1,000 to 43,200,000.
            stop_s: seconds that a stop waits for running tasks before it releases them.
        """
        super().__init__()
        self.formatter = _Formatter(self)
        if task_id_generator is not None:
            self.id_generator = task_id_generator
        self.url, self.key, self.queue, self.retry_failed, self.max_retries = url, key, queue, retry_failed, max_retries
        self._worker = Worker(
            self._deliver, url=url, key=key, queues=queues or [queue], concurrency=1 + prefetch, lease_ms=lease_ms,
            stop_s=stop_s,
        )  # fmt: skip
        self._prefetch = prefetch
        self._asked = self._taken = 0  # the tasks that taskiq waits for, and those that it has
        self._working: asyncio.Task[None] | None = None
        self._deliveries: asyncio.Queue[_Delivery] = asyncio.Queue()
        self._client: AsyncClient | None = None
        self._jobs: OrderedDict[str, str] = OrderedDict()  # task id -> its last job, for tasks that this process sent
        self._results: dict[str, _Saved] = {}  # by task id, until the ack
        self.result_backend = FastqResults(self)

    @property
    def client(self) -> AsyncClient:
        if self._client is None:
            self._client = AsyncClient(self.url, self.key)
        return self._client

    def job_id_of(self, task_id: str) -> str:
        """The job id of a task that this process sent. Any other id is returned unchanged: it is a job id."""
        return self._jobs.get(task_id, task_id)

    async def shutdown(self) -> None:
        await super().shutdown()
        if self._working is not None:
            self._worker.stop()
            await self._working
        if self._client is not None:
            await self._client.close()
            self._client = None

    # --- send ---------------------------------------------------------------------------------------------------------

    def _register_task(self, task_name: str, task: Any) -> None:
        if not inspect.iscoroutinefunction(task.original_func):
            task.original_func = _contained(task.original_func)
        super()._register_task(task_name, task)

    async def kick(self, message: BrokerMessage) -> None:
        labels = message.labels
        options: JobOptions = {"queue": str(labels.get("queue_name", self.queue))}
        if "priority" in labels:
            options["priority"] = int(labels["priority"])
        if "delay" in labels:
            options["delay_ms"] = round(float(labels["delay"]) * 1000)
        if self.max_retries is not None:
            options["max_retries"] = self.max_retries
        submitted = await self.client.submit(_payload(message.message), **options)
        self._jobs[message.task_id] = submitted.job_id
        self._jobs.move_to_end(message.task_id)
        if len(self._jobs) > TASKS_MAX:
            self._jobs.popitem(last=False)

    # --- work ---------------------------------------------------------------------------------------------------------

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Yield tasks until the receiver stops. Raises Refused: the server rejects the key."""
        self._working = asyncio.create_task(self._worker.run_async())
        waiting: asyncio.Task[_Delivery] | None = None
        try:
            while True:
                self._count(asked=1)
                waiting = asyncio.create_task(self._deliveries.get())
                await asyncio.wait({waiting, self._working}, return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done():
                    self._working.result()
                    return
                delivery = waiting.result()
                waiting = None
                if not delivery.outcome.done():  # else the job was cancelled, or its lease lost
                    self._count(taken=1)
                    delivery.outcome.add_done_callback(lambda _: self._count(taken=-1))
                    yield AckableMessage(data=delivery.data, ack=partial(self._ack, delivery))
        finally:
            self._worker.stop()
            if waiting is not None:
                await self._release_unless_taken(waiting)
            while not self._deliveries.empty():
                self._deliveries.get_nowait().end(Snooze(0))

    def _count(self, *, asked: int = 0, taken: int = 0) -> None:
        """Lease as many tasks as taskiq has and waits for, and those to prefetch."""
        self._asked = self._asked if taken < 0 else asked
        self._taken += taken
        self._worker.resize(self._asked + self._taken + self._prefetch)

    async def _release_unless_taken(self, waiting: asyncio.Task[_Delivery]) -> None:
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            (await waiting).end(Snooze(0))

    async def _deliver(self, job: Job[msgspec.Raw]) -> Outcome:
        """The handler of all jobs. It hands the task to taskiq and waits for taskiq's ack."""
        delivery = _Delivery(job.job_id, _message(bytes(job.payload)), asyncio.get_running_loop().create_future())
        self._deliveries.put_nowait(delivery)
        return await delivery.outcome

    async def _ack(self, delivery: _Delivery) -> None:
        delivery.end(self._outcome(delivery))

    def _outcome(self, delivery: _Delivery) -> Outcome:
        try:
            message = self.formatter.loads(delivery.data)
        except Exception as error:  # noqa: BLE001 -- a serializer raises anything; taskiq logs it and acks
            return Failure(error=f"the payload is not a taskiq message: {error}", code="bad_message", discard=True)
        if self.find_task(message.task_name) is None:
            return Failure(error=f"unknown task {message.task_name!r}", code="unknown_task", discard=True)
        result = self._results.pop(message.task_id, None)
        if result is None:
            job_id = self._jobs.get(message.task_id, delivery.job_id)
            return None if job_id == delivery.job_id else {NEXT_JOB: job_id}
        return result.outcome(self.retry_failed)

    def _keep(self, task_id: str, saved: _Saved) -> None:
        self._results[task_id] = saved

    def return_type_of(self, task_name: str) -> Any:
        """The annotation by which taskiq reads the result of a task; None without one."""
        task = self.find_task(task_name)
        return None if task is None else task.return_type


def _contained(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of a task that runs in a thread. No future carries a StopIteration: taskiq would wait for ever."""

    @wraps(function)
    def contained(*args: Any, **kwargs: Any) -> Any:
        process = os.getpid()
        try:
            return function(*args, **kwargs)
        except (StopIteration, GeneratorExit) as error:
            raise RuntimeError(f"the task raised {class_name(error)}") from error  # as Python does for coroutines
        finally:
            if os.getpid() != process:  # a fork of the task came back from it
                os._exit(0)

    module = sys.modules.get(function.__module__)
    if getattr(module, function.__name__, None) is function:  # a process pool finds it there
        setattr(module, function.__name__, contained)
    return contained


class FastqResults(AsyncResultBackend[Any]):
    """Keeps the result of a task as the result of its job. It needs taskiq's default: ack after the result is saved.

    A process finds tasks that it sent by task id, and all others by job id.
    """

    def __init__(self, broker: FastqBroker) -> None:
        self._broker = broker

    async def set_result(self, task_id: str, result: TaskiqResult[Any]) -> None:
        """Keep the result until the ack sends it. Raises NotJSON: the task has then failed, with that error."""
        then: Sequence[NewJob] = ()
        if isinstance(result.error, Success):
            then = result.error.then
            result = TaskiqResult(
                is_err=False, return_value=result.error.result, execution_time=result.execution_time,
                labels=result.labels,
            )  # fmt: skip
        try:
            plain = shown(result, self._broker.return_type_of(_task_name.get()))
            encoded(CODEC, plain, "result")
        except NotJSON as error:
            self._broker._keep(task_id, _Saved(error))
            raise
        self._broker._keep(task_id, _Saved(result.error, plain, then))

    async def is_result_ready(self, task_id: str) -> bool:
        return (await self._last_job(task_id)).is_complete

    async def get_result(
        self, task_id: str, with_logs: bool = False,  # noqa: ARG002 -- taskiq no longer keeps logs
    ) -> TaskiqResult[Any]:  # fmt: skip
        """The result of a task. Without one, as after a cancel, it is an error that names the job's state."""
        job = await self._last_job(task_id)
        plain = job.result
        if isinstance(plain, dict) and "is_err" in plain:
            return TaskiqResult[Any].model_validate(plain)
        message = f"job {job.job_id} is {job.state}" + (f": {job.error}" if job.error else ", without a result")
        return TaskiqResult(is_err=True, return_value=None, execution_time=0.0, error=RuntimeError(message))

    async def _last_job(self, task_id: str) -> JobStatus:
        """The last job of a task that was sent more than once. Raises NotFound."""
        job = await self._broker.client.get(self._broker.job_id_of(task_id))
        for _ in range(NEXT_MAX):
            plain = job.result
            if not (isinstance(plain, dict) and NEXT_JOB in plain):
                break
            job = await self._broker.client.get(plain[NEXT_JOB])
        return job


@dataclass(eq=False)
class _Delivery:
    """A task at taskiq's receiver. Its `outcome` ends the handler of the job."""

    job_id: str
    data: bytes
    outcome: asyncio.Future[Outcome]

    def end(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)


@dataclass(frozen=True)
class _Saved:
    """How a task ended. error: what it raised, or why its result is refused. plain: the result as JSON types."""

    error: BaseException | None
    plain: Any = UNSET
    then: Sequence[NewJob] = ()

    def outcome(self, retry_failed: bool) -> Outcome:
        """The outcome of the task's job."""
        error = self.error
        if error is None:
            return Success(self.plain, self.then) if self.then else self.plain
        if isinstance(error, Snooze):
            return error
        if self.plain is UNSET:
            return Failure(f"{error}", code="result_refused", discard=not retry_failed)
        name = class_name(error)
        if not isinstance(error, Failure):
            return Failure(f"{name}: {text_of(error)}", code=name, result=self.plain, discard=not retry_failed)
        return Failure(
            text_of(error.error), code=error.code or name, retry_after_ms=error.retry_after_ms, result=self.plain,
            discard=error.discard or (not retry_failed and error.retry_after_ms is None),
        )  # fmt: skip


_task_name: ContextVar[str] = ContextVar("fastq_task_name", default="")
"""The task whose message was read last in this context: taskiq reads a message and saves its result in one."""


class _Formatter(ProxyFormatter):
    """taskiq's formatter writes nan as null. This one raises NotJSON, which taskiq chains to its SendTaskError."""

    def dumps(self, message: TaskiqMessage) -> BrokerMessage:
        task = self.broker.find_task(message.task_name)
        check_arguments(message, None if task is None else task.original_func)
        check(message.labels, "labels")
        return super().dumps(message)

    def loads(self, message: bytes) -> TaskiqMessage:
        read = super().loads(message)
        _task_name.set(read.task_name)
        return read


def _payload(message: bytes) -> Any:
    """JSON unchanged, so that it stays readable; the bytes of other serializers as base64."""
    return msgspec.Raw(message) if message.startswith(b"{") else message


def _message(payload: bytes) -> bytes:
    """The bytes of a payload. Invalid ones stay unchanged, and taskiq reports them."""
    if payload.startswith(b'"'):
        with contextlib.suppress(ValueError):
            return base64.b64decode(payload[1:-1], validate=True)
    return payload
