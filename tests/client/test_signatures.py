"""The payload type of a handler is found however the handler is written, or the registration is refused."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import pytest

import fastq
from fastq import Job, Worker

if TYPE_CHECKING:
    from decimal import Decimal

    from fastq import Job as JobOfCheckers

T = TypeVar("T")


@dataclass
class Video:
    name: str


VideoJob = Job[Video]


def plain(job: Job[Video]) -> None: ...
async def later(job: fastq.Job[Video]) -> None: ...
def two(scale: int, job: Job[Video]) -> None: ...
def more(job: Job[Video], scale: int = 1, *, deep: bool = False) -> None: ...
def positional(job: Job[Video], /) -> None: ...
def stars(*jobs: Job[Video]) -> None: ...
def alias(job: VideoJob) -> None: ...
def annotated(job: Annotated[Job[Video], "of a film"]) -> None: ...
def returns_unknown(job: Job[Video]) -> Decimal: ...  # type: ignore[empty-body]


def decorated(function: Callable[[Job[T]], Any]) -> Callable[[Job[T]], Any]:
    @functools.wraps(function)
    def around(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return around


class Callables:
    def __call__(self, job: Job[Video]) -> None: ...
    def method(self, job: Job[Video]) -> None: ...
    @classmethod
    def of_class(cls, job: Job[Video]) -> None: ...
    @staticmethod
    def static(job: Job[Video]) -> None: ...


class AsyncCallable:
    async def __call__(self, job: Job[Video]) -> None: ...


FOUND: list[Any] = [
    plain, later, functools.partial(two, 2), functools.partial(more, scale=2),
    functools.partial(functools.partial(two), 2), more, positional, stars, alias, annotated, returns_unknown,
    decorated(plain), decorated(decorated(later)), decorated(functools.partial(two, 2)), Callables(),
    Callables().method, Callables.of_class, Callables.static, functools.partial(Callables().method), AsyncCallable(),
    functools.lru_cache(plain),
]  # fmt: skip


def named(value: Any) -> str:
    """The id of a case. `repr` of a function has its address: each process of pytest-xdist would name another test."""
    return value if isinstance(value, str) else re.sub(r" at 0x[0-9a-f]+", "", repr(value))


@pytest.mark.parametrize("handler", FOUND, ids=named)
def test_the_payload_type_is_found(handler: Any) -> None:
    worker = Worker(handler)
    worker.handles("q")(handler)
    for queue in ("q", "default"):
        assert worker.handler_of(queue).payload_type is Video  # type: ignore[union-attr]


def test_a_class_of_a_function_is_found() -> None:
    @dataclass
    class Local:
        x: int

    worker = Worker()

    @worker.handles("q")
    def handler(job: Job[list[Local]]) -> None: ...

    assert worker.handler_of("q").payload_type == list[Local]  # type: ignore[union-attr]


def bare(job: Job) -> None: ...  # type: ignore[type-arg]
def of_any(job: Job[Any]) -> None: ...
def nothing_said(job): ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize("handler", [bare, of_any, nothing_said, lambda job: None, lambda job, more=1: None], ids=named)
def test_without_a_type_the_payload_is_a_json_value(handler: Any) -> None:
    assert Worker(handler).handler_of("q").payload_type is Any  # type: ignore[union-attr]


def unresolved(job: Job[Decimal]) -> None: ...
def unresolved_job(job: JobOfCheckers[Video]) -> None: ...
def misspelt(job: Job[Vidoe]) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def of_payload(job: Video) -> None: ...
def of_mapping(job: dict[str, Any]) -> None: ...
def of_variable(job: Job[T]) -> None: ...
def none() -> None: ...
def named_only(*, job: Job[Video]) -> None: ...
def extra(job: Job[Video], other: int) -> None: ...
def hidden(*args, **kwargs): ...  # type: ignore[no-untyped-def]


class Generics(Generic[T]):
    def __call__(self, job: Job[T]) -> None: ...


REFUSED: list[tuple[Any, str]] = [
    (unresolved, "cannot be resolved.*'Decimal' is not defined"), (unresolved_job, "cannot be resolved"),
    (misspelt, "'Vidoe' is not defined"), (functools.partial(unresolved), "cannot be resolved"),
    (decorated(unresolved), "cannot be resolved"), (of_payload, "a handler gets a Job"),
    (of_mapping, "a handler gets a Job"), (of_variable, "type variable"), (Generics(), "type variable"),
    (none, "one argument"), (named_only, "one argument"), (extra, "one argument"), (hidden, r"\*args, which hides"),
    (functools.partial(two, scale=2), "one argument"), (Callables.method, "one argument"),
    (lambda: None, "one argument"),
]  # fmt: skip


@pytest.mark.parametrize(("handler", "message"), REFUSED, ids=named)
def test_a_type_that_cannot_be_found_is_refused(handler: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Worker(handler)
    with pytest.raises(ValueError, match=message):
        Worker().handles("q")(handler)
    assert Worker().handles("q", Video)(handler) is handler


def test_handles_needs_the_name_of_a_queue() -> None:
    with pytest.raises(TypeError, match="handles needs the name of a queue"):

        @Worker().handles  # type: ignore[arg-type]
        def handler(job: Job[Video]) -> None: ...


class Text:
    """A codec that reads any type."""

    def encode(self, value: Any) -> bytes:
        return b'""'

    def decode(self, text: bytes, as_type: Any) -> Any:
        return as_type()


class Checking(Text):
    def check(self, as_type: Any) -> None:
        raise ValueError("no such type")


def test_a_codec_of_the_caller_checks_its_own_types() -> None:
    Worker(codec=Text()).handles("q", complex)(plain)
    with pytest.raises(ValueError, match="no such type"):
        Worker(codec=Checking()).handles("q", complex)(plain)
