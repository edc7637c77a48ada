"""The outcomes of a handler. It returns one, or raises one from any depth: both mean the same."""

from __future__ import annotations

import copyreg
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Generic, TypeVar

from msgspec import UNSET

from fastq.client.models import NewJob

T = TypeVar("T")


class Outcome(Exception):
    """The base class. It is no error: code that catches `Exception` lets it pass with `except fastq.Outcome: raise`."""

    def __post_init__(self) -> None:
        self.args = tuple(getattr(self, field.name) for field in fields(self)[:1])  # type: ignore[arg-type] # a subclass

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, one.name) == getattr(other, one.name) for one in fields(self))  # type: ignore[arg-type]

    def __hash__(self) -> int:
        return hash(type(self))

    def __reduce__(self) -> Any:
        return copyreg.__newobj__, (type(self),), {**self.__dict__, "args": self.args}  # type: ignore[attr-defined]


@dataclass(eq=False)
class Success(Outcome, Generic[T]):
    """A handler gives it to submit follow-up jobs. Without `then` it equals a plain value.

    then: jobs to submit in the same transaction as the ack.
    """

    result: T | None = None
    then: Sequence[NewJob] = ()


@dataclass(eq=False)
class Failure(Outcome):
    """A handler gives it to fail the attempt. Another exception does the same, with its class name as the code.

    error: text. retry_after_ms: milliseconds until the retry; default: the job's backoff. discard: make the job DEAD
    although attempts are left.
    """

    error: str
    _: KW_ONLY
    code: str | None = None
    retry_after_ms: int | None = None
    discard: bool = False
    result: Any = UNSET


@dataclass(eq=False)
class Snooze(Outcome):
    """A handler gives it to run the job again after `delay_ms`. The attempt does not count."""

    delay_ms: int
