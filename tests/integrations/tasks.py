"""Django tasks for the tests. Import it after Django has its settings."""

from __future__ import annotations

import sys
from typing import Any

import django

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


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@task(takes_context=True)
def second_time(context: Any) -> str:
    if context.attempt < 2:
        raise RuntimeError("not yet")
    return f"{context.attempt} of {context.task_result.id}"


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
