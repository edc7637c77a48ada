"""The plan of a run, and what its client processes learn of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

import msgspec

LEASE_MS = 1000  # short, so that the jobs of killed clients return soon
RETENTION_MS = 1000  # of ACKED jobs in a cleaning run
VANISH, FAIL = 0.03, 0.15  # shares of leases that are never acked, and that are acked with an error
DEFERRED = 0.03  # share of jobs in a queue that is worked only at the end: the cleaner moves them again and again
FRAGILE_EVERY, FRAGILE_RETRIES, RETRIES = 25, 2, 50  # every 25th job has few attempts and may become a dead letter
PAYLOAD_BYTES = (0, 100, 100, 100, 1000, 20_000)
Draws: TypeAlias = Random
SERVE = (sys.executable, "-m", "fastq", "serve")


@dataclass(frozen=True)
class Plan:
    """The size of a run.

    kill_interval_s: the least time between two kills; 0: kills come as fast as the jobs go.
    kill_clients: kill client processes too.
    cleaning: keep finished jobs for RETENTION_MS only and give the log little slack, so that the cleaner always works.
    processes: the number of client processes that share the workers.
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
    """The load, the same for all client processes. `name` is the unique prefix of this run's queues and keys."""

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
    """The first line that a client process reads.

    It first submits the jobs in `again`, which its killed predecessor had sent; then `begin`, `begin` + processes, and
    so on.
    """

    load: Load
    number: int
    life: int
    workers: int
    begin: int
    again: list[int]


class Orders(msgspec.Struct):
    """Each further line; the newest one holds. The process ends at end of file.

    open: jobs below this number may be submitted. up: the server answers. resting: send no requests. working_off: ack
    every lease, and work every queue.
    """

    open: int = 0
    up: bool = False
    resting: bool = False
    working_off: bool = False


def draws(*purpose: object) -> Draws:
    """Random draws, the same for the same purpose: a seed repeats a run."""
    return Random(" ".join(map(str, purpose)))


def payload_of(number: int, seed: int) -> str:
    """The unique payload of a job."""
    draw = draws(seed, "payload", number)
    size = draw.choice(PAYLOAD_BYTES) if draw.random() < 0.5 else 100
    return f"{number}:{'x' * size}"


def is_deferred(number: int, seed: int) -> bool:
    """Whether a job goes to the queue that is worked only at the end."""
    return draws(seed, "queue", number).random() < DEFERRED


def retries_of(number: int) -> int:
    return FRAGILE_RETRIES if number % FRAGILE_EVERY == 0 else RETRIES


def result_of(attempt: int) -> str:
    return f"done {attempt}"


def new_seed() -> int:
    return Random().randrange(1_000_000)
