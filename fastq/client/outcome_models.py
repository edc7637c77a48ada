"""The outcomes of a handler. It returns one, or raises one from any depth: both mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Generic, TypeVar

from msgspec import UNSET

from fastq.client.errors import Outcome
from fastq.client.models import NewJob

__all__ = ["Failure", "Outcome", "Snooze", "Success"]

T = TypeVar("T")


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
