"""What a client process writes down, one line each, before it goes on: what it asks, and what it was told.

The lines go into a pipe to the harness: what was written stays in it, whatever happens to the process.
Times are of the machine's monotonic clock, microseconds, which all processes share.
"""

from __future__ import annotations

import os
from typing import TypeAlias

import msgspec


class Sending(msgspec.Struct, tag="sending", array_like=True, frozen=True):
    """Job `number` goes out, perhaps not for the first time."""

    number: int
    at_us: int


class Submitted(msgspec.Struct, tag="submitted", array_like=True, frozen=True):
    number: int
    job_id: str
    at_us: int


class Leased(msgspec.Struct, tag="leased", array_like=True, frozen=True):
    """`payload`: what came, without its filling if that is right. `granted_us`, `until_us`: the server's own times."""

    job_id: str
    payload: str
    attempt: int
    granted_us: int
    until_us: int


class Acking(msgspec.Struct, tag="acking", array_like=True, frozen=True):
    """An ack goes out for the first time; `fails`: with an error."""

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
    """The ack was refused because the lease had run out."""

    job_id: str
    attempt: int


class Gone(msgspec.Struct, tag="gone", array_like=True, frozen=True):
    """An ack that was repeated met a job that is there no more."""

    job_id: str
    at_us: int


class Unanswered(msgspec.Struct, tag="unanswered", array_like=True, frozen=True):
    """A request went out and no whole answer came. `waited`: it was one that waits for a job."""

    asked_us: int
    at_us: int
    waited: bool


class Busy(msgspec.Struct, tag="busy", array_like=True, frozen=True):
    """The server took nothing just then."""

    status: int


class Wrong(msgspec.Struct, tag="wrong", array_like=True, frozen=True):
    """An answer that should not be."""

    kind: str
    what: str


class Resting(msgspec.Struct, tag="resting", array_like=True, frozen=True):
    """Nothing is under way."""


Event: TypeAlias = (
    Sending | Submitted | Leased | Acking | Acked | TooLate | Gone | Unanswered | Busy | Wrong | Resting
)  # fmt: skip

_encode = msgspec.json.Encoder().encode
read_event = msgspec.json.Decoder(Event).decode


def write(pipe: int, event: Event) -> None:
    """Returns when the line is in the pipe, which outlives us."""
    line = _encode(event) + b"\n"
    while line:
        line = line[os.write(pipe, line) :]
