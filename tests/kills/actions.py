"""An actor's actions, with their weights."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.kills.actor import JOBS_MAX, Actor
from tests.kills.attempts import (
    ack,
    ack_again,
    ack_many,
    ack_stale,
    extend,
    heartbeat,
    lease,
    progress,
    transact,
    transact_again,
    work_off,
)
from tests.kills.changes import (
    cancel,
    cancel_many,
    delete,
    delete_many,
    edit,
    look_around,
    purge,
    redrive,
    redrive_many,
)
from tests.kills.submits import (
    mismatch,
    replace_many,
    submit,
    submit_again,
)

Action = Callable[[Actor], Awaitable[None]]

ACTIONS: list[tuple[int, Action]] = [
    (12, submit),
    (5, replace_many),
    (3, submit_again),
    (1, mismatch),
    (10, lease),
    (12, ack),
    (2, ack_again),
    (1, ack_stale),
    (3, ack_many),
    (2, extend),
    (2, heartbeat),
    (3, progress),
    (6, transact),
    (2, transact_again),
    (5, cancel),
    (4, redrive),
    (6, edit),
    (3, delete),
    (1, delete_many),
    (1, cancel_many),
    (1, redrive_many),
    (1, purge),
    (3, look_around),
]

WEIGHED = [action for weight, action in ACTIONS for _ in range(weight)]
LESS: list[Action] = [delete, delete_many, work_off, purge]
"""The weights when there are many jobs."""


async def step(actor: Actor) -> None:
    action = actor.rng.choice(LESS if len(actor.known.jobs) > JOBS_MAX else WEIGHED)
    actor.line.counts[action.__name__] += 1
    await action(actor)
