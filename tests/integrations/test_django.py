"""Django's tasks on a real server, run by a real worker."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.test import override_settings
from django.utils import timezone

settings.configure(
    SECRET_KEY="x",
    USE_TZ=True,
    INSTALLED_APPS=["fastq.integrations.django"],
    TASKS={"default": {"BACKEND": "fastq.integrations.django.FastqBackend"}},
)
django.setup()

from fastq import Client, NotJSON, Worker  # noqa: E402 -- Django wants its settings first
from fastq.integrations.django import FastqBackend, worker_of  # noqa: E402
from fastq.integrations.django.backend import client_of  # noqa: E402
from fastq.integrations.django.compat import (  # noqa: E402
    InvalidTask,
    TaskResultDoesNotExist,
    task_backends,
    task_enqueued,
    task_finished,
    task_started,
)
from tests.client.served import Place  # noqa: E402
from tests.integrations import tasks  # noqa: E402
from tests.served import ROOT  # noqa: E402


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """The management command sets the log level of the process; restore it for other tests."""
    logger = logging.getLogger("fastq")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.fixture(autouse=True)
def configured(place: Place, queue: str) -> Iterator[None]:
    """Configure the default backend for the queue of the test."""
    options = {"URL": place.url, "KEY": place.keys["admin"]}
    default = {"BACKEND": "fastq.integrations.django.FastqBackend", "QUEUES": [queue], "OPTIONS": options}
    more = {"OPTIONS": {**options, "MAX_RETRIES": 1}}
    with override_settings(TASKS={"default": default, "once": {**default, **more}}):
        yield
    client_of(place.url, place.keys["admin"]).close()
    client_of.cache_clear()


def backend(alias: str = "default") -> FastqBackend:
    found = task_backends[alias]
    assert isinstance(found, FastqBackend)
    return found


def worked(**options: Any) -> Worker:
    """Run all ready tasks."""
    worker = worker_of(backend(), lease_ms=1000, **options)
    worker.run(burst=True)
    return worker


def test_a_task_and_its_result_are_one_job(queue: str, client: Client) -> None:
    result = tasks.add.using(queue_name=queue, priority=7).enqueue(20, b=22)
    assert (result.status, result.args, result.kwargs) == ("READY", [20], {"b": 22})
    job = client.get(result.id, with_payload=True)
    assert (job.queue, job.priority) == (queue, 7)
    assert job.payload == {"task": "tests.integrations.tasks.add", "args": [20], "kwargs": {"b": 22}}
    worker = worked()
    result.refresh()
    assert (result.status, result.return_value, result.errors) == ("SUCCESSFUL", 42, [])
    assert (result.attempts, result.worker_ids) == (1, [worker.worker_id])
    times = [result.enqueued_at, result.started_at, result.finished_at]
    assert all(times) and times == sorted(times) and result.last_attempted_at == result.started_at
    again = tasks.add.get_result(result.id)
    assert (again.return_value, again.task.priority, again.task.queue_name) == (42, 7, queue)


async def test_the_async_methods(queue: str) -> None:
    result = await tasks.double.using(queue_name=queue).aenqueue([1, 2])
    await asyncio.to_thread(worked)
    assert (await tasks.double.aget_result(result.id)).return_value == [1, 2, 1, 2]


def test_a_task_is_enqueued_for_later(queue: str, client: Client) -> None:
    at = timezone.now() + timedelta(hours=1)
    result = tasks.add.using(queue_name=queue, run_after=at).enqueue(1, 2)
    job = client.get(result.id)
    assert job.state == "SCHEDULED" and abs(job.run_at - at) < timedelta(milliseconds=1)  # type: ignore[operator]
    assert tasks.add.get_result(result.id).status == "READY"


def test_a_naive_time_is_in_the_zone_of_the_settings(queue: str, client: Client) -> None:
    with override_settings(USE_TZ=False, TIME_ZONE="Asia/Tokyo"):
        at = timezone.now() + timedelta(hours=1)
        result = tasks.add.using(queue_name=queue, run_after=at).enqueue(1, 2)
        assert timezone.is_naive(result.enqueued_at)
        job = client.get(result.id)
        assert abs(job.run_at - timezone.make_aware(at)) < timedelta(milliseconds=1)
        assert timezone.is_naive(backend().get_result(result.id).enqueued_at)


def test_a_task_that_raises_runs_again_and_then_has_failed(queue: str) -> None:
    result = tasks.fail.using(queue_name=queue).enqueue("no card")
    while not result.is_finished:  # a burst ends while the next attempt waits for its time
        worked()
        result.refresh()
    assert (result.status, result.attempts, len(result.errors)) == ("FAILED", 3, 3)
    assert [error.exception_class for error in result.errors] == [tasks.Declined] * 3
    assert "no card" in result.errors[0].traceback
    assert "raise Declined(text)" in result.errors[-1].traceback
    with pytest.raises(ValueError, match="Task failed"):
        _ = result.return_value


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("exit", "SystemExit"),
        ("interrupt", "KeyboardInterrupt"),
        ("stop", "StopIteration"),
        ("mute", "tests.integrations.tasks.Mute"),
        ("text", "tests.integrations.tasks.Declined"),
    ],
)
def test_whatever_a_task_raises_fails_it_alone(queue: str, client: Client, how: str, error: str) -> None:
    left = tasks.leave.using(queue_name=queue, backend="once").enqueue(how)
    after = tasks.add.using(queue_name=queue, backend="once").enqueue(1, 2)
    worked()
    left.refresh()
    after.refresh()
    assert (left.status, after.return_value) == ("FAILED", 3)
    assert left.errors[0].exception_class_path.removeprefix("builtins.") == error
    assert error in client.get(left.id).error
    assert "in leave" in left.errors[0].traceback


@pytest.mark.parametrize("task", ["fork", "fork_async", "fork_in_loop"])
def test_a_fork_of_a_task_ends_when_it_comes_back(queue: str, task: str) -> None:
    """Whatever it raises. It takes nothing along that the worker's process waits for, and sends no signal of Django."""
    finished: list[int] = []

    def tell(**_: Any) -> None:
        finished.append(os.getpid())
        os.write(told, b".")

    seen, told = os.pipe()
    task_finished.connect(tell)
    try:
        hows = ["return", "exit", *tasks.ENDS, *(["await", "task", "process"] if task != "fork" else [])]
        results = [getattr(tasks, task).using(queue_name=queue, backend="once").enqueue(how) for how in hows]
        worked()
    finally:
        task_finished.disconnect(tell)
    for result in results:
        result.refresh()
    statuses = [result.return_value for result in results if result.status == "SUCCESSFUL"]
    assert statuses == [3 if how == "process" else 0 for how in hows]
    assert (set(finished), len(os.read(seen, 1000))) == ({os.getpid()}, len(hows))
    os.close(seen)
    os.close(told)


def test_a_task_raises_an_outcome(queue: str, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a handler does. Its signals and its error in Django tell the same."""
    monkeypatch.setenv("FASTQ_SNOOZED", str(tmp_path / "snoozed"))
    told: list[str] = []

    def tell(task_result: Any, **_: Any) -> None:
        told.append(task_result.status)

    task_finished.connect(tell)
    try:
        ends = {how: tasks.decide.using(queue_name=queue).enqueue(how) for how in ("snooze", "success", "retry", "no")}
        ends["async"] = tasks.decide_async.using(queue_name=queue).enqueue("no")
        worked()
    finally:
        task_finished.disconnect(tell)
    for how, end in ends.items():
        end.refresh()
        job = client.get(end.id)
        if how in ("no", "async"):
            (attempt,) = client.attempts(end.id)
            assert (end.status, job.error, attempt.error_code, job.attempts) == ("FAILED", "no card", "declined", 1)
            assert end.errors[0].exception_class_path == "fastq.client.outcome_models.Failure"
        else:
            assert end.status == "SUCCESSFUL"
    assert (ends["snooze"].return_value, client.get(ends["snooze"].id).attempts) == ("awake", 1)
    assert (ends["retry"].return_value, client.get(ends["retry"].id).attempts) == ("second", 2)
    assert ends["success"].return_value == "early"
    assert [job.queue for job in client.jobs(queue="elsewhere")] == ["elsewhere"]
    assert sorted(told) == ["FAILED", "FAILED", "SUCCESSFUL", "SUCCESSFUL", "SUCCESSFUL"]


def test_max_retries_of_the_settings(queue: str) -> None:
    result = tasks.fail.using(queue_name=queue, backend="once").enqueue("no card")
    worked()
    result.refresh()
    assert (result.status, result.attempts) == ("FAILED", 1)


def test_the_context_tells_the_attempt(queue: str) -> None:
    result = tasks.second_time.using(queue_name=queue).enqueue()
    while not result.is_finished:
        worked()
        result.refresh()
    assert (result.return_value, result.attempts) == (f"2 of {result.id}", 2)
    assert result.errors[0].exception_class is RuntimeError


def test_signals_tell_of_each_attempt_and_of_the_end(queue: str) -> None:
    told: list[tuple[str, str, str]] = []

    def teller(name: str) -> Any:
        def tell(sender: type[Any], task_result: Any, **_: Any) -> None:
            assert sender is FastqBackend
            told.append((name, task_result.id, task_result.status))

        return tell

    tellers = [(signal, teller(name)) for signal, name in (
        (task_enqueued, "enqueued"), (task_started, "started"), (task_finished, "finished"))]  # fmt: skip
    for signal, tell in tellers:
        signal.connect(tell)
    try:
        good = tasks.add.using(queue_name=queue).enqueue(1, 2)
        worked()
        bad = tasks.fail.using(queue_name=queue).enqueue("x")
        while not bad.is_finished:
            worked()
            bad.refresh()
    finally:
        for signal, tell in tellers:
            signal.disconnect(tell)
    assert told == [
        ("enqueued", good.id, "READY"), ("started", good.id, "RUNNING"), ("finished", good.id, "SUCCESSFUL"),
        ("enqueued", bad.id, "READY"), *[("started", bad.id, "RUNNING")] * 3, ("finished", bad.id, "FAILED"),
    ]  # fmt: skip


def test_arguments_and_results_must_be_json(queue: str, place: Place) -> None:
    with pytest.raises(TypeError):
        tasks.add.using(queue_name=queue).enqueue(object(), 1)
    assert place.jobs(queue=queue) == []
    result = tasks.no_json.using(queue_name=queue, backend="once").enqueue()
    worked()
    result.refresh()
    assert result.status == "FAILED" and result.errors[0].exception_class is NotJSON


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("args", "kwargs", "place_of_it"),
    [
        ((float("nan"),), {}, "payload.args[0]"), ((1, {"a": [0, float("inf")]}), {}, 'payload.args[1]["a"][1]'),
        ((LOOP,), {}, "args[0][0]"), ((), {"a": [b"\xff"]}, "kwargs['a'][0]"), ((), {"a": {1, 2}}, 'kwargs["a"]'),
        (("caf\udce9",), {}, "payload.args[0]"), (([2**64],), {}, "payload.args[0][0]"),
        (({1: 2},), {}, "payload.args[0]"), ((), {"a": datetime.now(UTC)}, "kwargs['a']"),
        (("x" * (1 << 20),), {}, "payload"),
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_arguments_that_json_cannot_carry_are_refused(
    queue: str, place: Place, args: Any, kwargs: Any, place_of_it: str
) -> None:
    with pytest.raises(NotJSON) as refused:
        tasks.take.using(queue_name=queue).enqueue(*args, **kwargs)
    assert refused.value.place == place_of_it
    assert place.jobs(queue=queue) == []


@pytest.mark.parametrize("task", ["give_nan", "give_loop"])
def test_a_result_that_json_cannot_carry_fails_the_task(queue: str, task: str) -> None:
    result = getattr(tasks, task).using(queue_name=queue, backend="once").enqueue()
    worked()
    result.refresh()
    assert result.status == "FAILED" and result.errors[0].exception_class is NotJSON
    assert "result[" in result.errors[0].traceback


def test_unknown_results(queue: str, client: Client) -> None:
    with pytest.raises(TaskResultDoesNotExist):
        backend().get_result("01a20e39-9a31-7221-8000-0000014e516d")
    for payload in ("x", {"task": "tests.integrations.tasks.gone", "args": [], "kwargs": {}},
                    {"task": "os.path.join", "args": [], "kwargs": {}}):  # fmt: skip
        job_id = client.submit(payload, queue=queue).job_id
        with pytest.raises(TaskResultDoesNotExist):
            backend().get_result(job_id)
        worked()
        job = client.get(job_id)
        assert job.state == "DEAD" and job.error.startswith("the payload is not a known task")


def test_a_cancelled_task_has_failed(queue: str, client: Client) -> None:
    result = tasks.add.using(queue_name=queue).enqueue(1, 2)
    client.cancel(result.id)
    result.refresh()
    assert (result.status, result.errors) == ("FAILED", [])


def test_a_running_task_names_its_worker(queue: str, client: Client) -> None:
    result = tasks.add.using(queue_name=queue).enqueue(1, 2)
    client.lease([queue], limit=1, worker_id="w1")
    result.refresh()
    assert (result.status, result.worker_ids) == ("RUNNING", ["w1"])


def test_invalid_settings_are_reported(queue: str) -> None:
    with pytest.raises(InvalidTask, match="1 to 64"), override_settings(TASKS={
        "default": {"BACKEND": "fastq.integrations.django.FastqBackend", "QUEUES": []}}):  # fmt: skip
        tasks.add.using(queue_name="not a name")
    with pytest.raises(InvalidTask, match="not valid for backend"):
        tasks.add.using(queue_name="other")
    with pytest.raises(ImproperlyConfigured, match="unknown option RETRIES"):
        FastqBackend("default", {"OPTIONS": {"RETRIES": 1}})


def test_the_management_command(queue: str) -> None:
    result = tasks.add.using(queue_name=queue).enqueue(1, 2)
    call_command("fastq_worker", "--burst", "--queue", queue, "--concurrency", "2")
    result.refresh()
    assert result.return_value == 3
    with pytest.raises(CommandError, match="concurrency"):
        call_command("fastq_worker", "--burst", "--concurrency", "0")
    dummy = {"BACKEND": "django_tasks.backends.dummy.DummyBackend"}
    with override_settings(TASKS={"default": dummy}), pytest.raises(CommandError, match="is not a FastqBackend"):
        call_command("fastq_worker", "--burst")


def test_import_before_the_applications_are_ready() -> None:
    code = "import fastq.integrations.django, fastq.integrations.django.apps"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
