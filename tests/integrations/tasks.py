"""Django tasks for the tests. Import it after Django has its settings."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django

from fastq import Failure, NewJob, Snooze, Success

if django.VERSION < (6,):
    from django_tasks import task
else:
    from django.tasks import task


class Declined(Exception):
    pass


@task
def add(a: int, b: int) -> int:
    return a + b


@task
async def double(numbers: list[int]) -> list[int]:
    return numbers * 2


@task
def fail(text: str) -> None:
    raise Declined(text)


@task
def leave(how: str) -> None:
    if how == "exit":
        sys.exit(3)
    raise {"interrupt": KeyboardInterrupt, "stop": StopIteration, "mute": Mute, "text": Declined}[how]("caf\udce9")


def _come_back(how: str) -> Any:
    """What a child of a fork does when it comes back from its task."""
    if how == "exit":
        sys.exit(3)
    if how in ENDS:
        raise ENDS[how]()
    return how


ENDS: dict[str, Callable[[], BaseException]] = {
    "base": lambda: BaseException("bottom"),
    "interrupt": KeyboardInterrupt,
    "group": lambda: BaseExceptionGroup("two", [SystemExit(1)]),
    "error": lambda: ValueError("a child"),
    "cancelled": asyncio.CancelledError,
}


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fork beside threads
        return os.fork()


@task
def fork(how: str) -> Any:
    child = _fork()
    return os.waitpid(child, 0)[1] if child else _come_back(how)


@task
async def fork_async(how: str) -> Any:
    if how == "process":
        process = multiprocessing.get_context("fork").Process(target=os._exit, args=(3,))
        process.start()
        await asyncio.to_thread(process.join)
        return process.exitcode
    if how == "task":
        return await asyncio.create_task(fork_async.func("exit"))
    child = _fork()
    if how == "await":
        await asyncio.sleep(0.01)
    if not child:
        return _come_back(how)
    await asyncio.sleep(0.1)  # the child ends first
    return (await asyncio.to_thread(os.waitpid, child, 0))[1]


@task
def fork_in_loop(how: str) -> Any:
    return asyncio.run(fork_async.func(how))


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@task(takes_context=True)
def second_time(context: Any) -> str:
    if context.attempt < 2:
        raise RuntimeError("not yet")
    return f"{context.attempt} of {context.task_result.id}"


@task(takes_context=True)
def decide(context: Any, how: str) -> Any:
    if how == "snooze" and Path(os.environ["FASTQ_SNOOZED"]).exists():
        return "awake"
    if how == "snooze":
        Path(os.environ["FASTQ_SNOOZED"]).touch()
        raise Snooze(1)
    if how == "success":
        raise Success("early", [NewJob(payload="next", queue="elsewhere")])
    if how == "retry" and context.attempt == 1:
        raise Failure("later", retry_after_ms=1)
    if how == "retry":
        return "second"
    raise Failure("no card", code="declined", discard=True)


@task
async def decide_async(how: str) -> Any:
    raise Failure("no card", code="declined", discard=True)


@task
def no_json() -> Any:
    return object()


@task
def take(*values: Any, **named: Any) -> Any:
    return named.get("result")


@task
def give_nan() -> Any:
    return {"a": [float("nan")]}


@task
def give_loop() -> Any:
    value: list[Any] = []
    value.append(value)
    return value
