"""A client process's journal: one line for each request and answer, written before the process goes on.

The lines go into a pipe to the harness. A line in the pipe outlives the process.
Times are microseconds of the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import os
from typing import TypeAlias

import msgspec


class Sending(msgspec.Struct, tag="sending", array_like=True, frozen=True):
    """A submit of job `number` goes out, perhaps again."""

    number: int
    at_us: int


class Submitted(msgspec.Struct, tag="submitted", array_like=True, frozen=True):
    number: int
    job_id: str
    at_us: int


class Leased(msgspec.Struct, tag="leased", array_like=True, frozen=True):
    """`payload`: the leased payload, without its filling if that is right. `granted_us`, `until_us`: server's times."""

    job_id: str
    payload: str
    attempt: int
    granted_us: int
    until_us: int


class Acking(msgspec.Struct, tag="acking", array_like=True, frozen=True):
    """An ack goes out for the first time. `fails`: it reports an error."""

    job_id: str
    attempt: int
    fails: bool
    at_us: int


class Acked(msgspec.Struct, tag="acked", array_like=True, frozen=True):
    job_id: str
    attempt: int
    fails: bool
    at_us: int


class TooLate(msgspec.Struct, tag="too-late", array_like=True, frozen=True):
    """The ack was refused because the lease had expired."""

    job_id: str
    attempt: int


class Gone(msgspec.Struct, tag="gone", array_like=True, frozen=True):
    """A repeated ack was refused because the job no longer exists."""

    job_id: str
    at_us: int


class Unanswered(msgspec.Struct, tag="unanswered", array_like=True, frozen=True):
    """A request went out and no complete answer came. `waited`: it was a lease that waits for a job."""

    asked_us: int
    at_us: int
    waited: bool


class Busy(msgspec.Struct, tag="busy", array_like=True, frozen=True):
    """The server refused a request because it was busy."""

    status: int


class Wrong(msgspec.Struct, tag="wrong", array_like=True, frozen=True):
    """An unexpected answer."""

    kind: str
    what: str


class Resting(msgspec.Struct, tag="resting", array_like=True, frozen=True):
    """No request is in flight."""


Event: TypeAlias = (
    Sending | Submitted | Leased | Acking | Acked | TooLate | Gone | Unanswered | Busy | Wrong | Resting
)  # fmt: skip

_encode = msgspec.json.Encoder().encode
read_event = msgspec.json.Decoder(Event).decode


def write(pipe: int, event: Event) -> None:
    """Write an event. Returns when the line is in the pipe, which outlives this process."""
    line = _encode(event) + b"\n"
    while line:
        line = line[os.write(pipe, line) :]
