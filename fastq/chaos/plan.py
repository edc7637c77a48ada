"""What a run is to do, and what its client processes are told of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

import msgspec

LEASE_MS = 1000  # of the harness's own leases: those of whoever vanished come back soon
RETENTION_MS = 1000  # of ACKED jobs, if the cleaner is to work hard
VANISH, FAIL = 0.03, 0.15  # shares of leases that are never acked, and that are acked with an error
PUT_OFF = 0.03  # share of jobs in a queue that nobody works on before the end: they are moved again and again
FRAGILE_EVERY, FRAGILE_RETRIES, RETRIES = 25, 2, 50  # every 25th job has few attempts and may become a dead letter
PAYLOAD_BYTES = (0, 100, 100, 100, 1000, 20_000)
Draws: TypeAlias = Random
SERVE = (sys.executable, "-m", "fastq", "serve")


@dataclass(frozen=True)
class Plan:
    """How much of what.

    kill_interval_s: at least so long from one kill to the next; else as fast as the jobs go.
    kill_clients: client processes are killed too.
    cleaning: finished jobs go after RETENTION_MS and the log has little slack, so that the cleaner never rests.
    processes: that the workers are divided among.
    """

    jobs: int = 10_000
    workers: int = 16
    kills: int = 20
    kill_interval_s: float = 0.0
    kill_clients: bool = False
    cleaning: bool = False
    processes: int = 2
    seed: int = 1
    serve: Sequence[str] = SERVE


class Load(msgspec.Struct, frozen=True):
    """What all client processes are told once. `name` begins the queues and keys of this run, and of no other."""

    url: str
    key: str
    name: str
    jobs: int
    processes: int
    workers: int
    seed: int

    @property
    def queue(self) -> str:
        return self.name

    @property
    def later_queue(self) -> str:
        return f"{self.name}.later"


class Brief(msgspec.Struct, frozen=True):
    """The first line that one client process reads.

    It submits jobs `begin`, `begin` + processes and so on, after those in `again`, which its predecessor had sent when
    it was killed.
    """

    load: Load
    number: int
    life: int
    workers: int
    begin: int
    again: list[int]


class Orders(msgspec.Struct):
    """Each further line: the newest holds. End of file: end.

    open: jobs below this number may be submitted. up: the server is there. resting: ask nothing. working_off: nobody
    vanishes any more, and every queue is worked on.
    """

    open: int = 0
    up: bool = False
    resting: bool = False
    working_off: bool = False


def draws(*purpose: object) -> Draws:
    """The same for the same purpose: a run is told by its seed."""
    return Random(" ".join(map(str, purpose)))


def payload_of(number: int, seed: int) -> str:
    """The payload of a job, which no other has."""
    draw = draws(seed, "payload", number)
    size = draw.choice(PAYLOAD_BYTES) if draw.random() < 0.5 else 100
    return f"{number}:{'x' * size}"


def is_put_off(number: int, seed: int) -> bool:
    """Whether a job goes to the queue that nobody works on before the end."""
    return draws(seed, "queue", number).random() < PUT_OFF


def retries_of(number: int) -> int:
    return FRAGILE_RETRIES if number % FRAGILE_EVERY == 0 else RETRIES


def result_of(attempt: int) -> str:
    return f"done {attempt}"


def new_seed() -> int:
    return Random().randrange(1_000_000)
