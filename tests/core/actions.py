"""The actions of a random walk on queues, with their weights. Each is one step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from fastq._core import Access
from tests.core.agreement import agree_on_pages, agree_on_positions, agree_on_rising
from tests.core.model import Server
from tests.core.model_jobs import Ack, Job, New
from tests.core.model_order import Settings
from tests.core.model_views import Filter
from tests.core.world import FORGED_TOKEN, World

T = TypeVar("T")


class Draw(Protocol):
    """The source of choices: a generator, or Hypothesis, which shrinks them."""

    def pick(self, choices: Sequence[T]) -> T: ...


class RandomDraw:
    def __init__(self, rng: random.Random) -> None:
        self.pick = rng.choice


PAYLOADS = [b'"x"', b"17", b'{"a":[1,2]}', b'"' + b"y" * 1500 + b'"']
ERRORS = ["", "boom", "boom", "\u00e9" * 1500]
RESULTS = [None, None, b'"done"', b"{}"]
OUTCOMES = ["ok", "ok", "ok", "error", "error", "error", "discard", "snooze", "release"]
PRIORITIES = [0, 0, 0, 0, 1, 1, 5, -3, 2**31 - 1, -(2**31)]
DELAYS_US = [0, 0, 0, 0, -5, 1_500_000]
QUEUES = ["default", "default", "default", "mail", "bulk"]
GROUPS = ["", "", "a", "b", "c"]
QUEUES_ASKED: list[list[str] | dict[str, int]] = [
    ["default"],
    ["default"],
    ["mail"],
    ["bulk"],
    ["mail", "default"],
    ["none", "bulk", "default", "mail"],
    {"default": 3, "mail": 1},
    {"default": 1, "mail": 2, "bulk": 5, "none": 1},
    {"bulk": 1_000_000},
]
BACKOFFS = [None, None, None, (1, 1.0, 1), (500, 3.5, 60_000), (1000, 1e300, 3_600_000)]
JITTERS = [0.0, 0.25, 0.999999, 0.5]
UNIQUE_KEYS = ["", "", "", "u1", "u2"]
IDEMPOTENCY_KEYS = ["", "", "", "", "i1", "i2", "i3", "i4", "i5"]
OWNERS = ["o1", "o1", "o1", "o2"]
TAGS: list[tuple[str, ...]] = [(), (), ("red",), ("red", "blue"), ("reddish",)]
REQUESTS = ["", "", "", "r1", "r2"]
WORKERS = ["", "w1", "worker-two"]
CLEANS = ["move", "trim", "drop", "drop"]
LEASES_MS = [0, 0, 1000, 5000, 60_000]
STEPS_US = [0, 1, 999, 1_000_000, 1_000_000, 2_500_000, 31_000_000, 61_000_000]
STRANGERS = ["", "nope", "018bcfe5-6800-707b-8000-000001646464", "\u00e9" * 36, "0" * 36]
SHOWN = ["", "READY", "SCHEDULED", "RUNNING", "RETRY", "ACKED", "DEAD", "EXPIRED", "CANCELLED"]

SERVERS = [
    Server(),
    Server(poison_expiries=2, grace_ms=1),
    Server(lease_ms=2_000, backoff=(10, 1.5, 700), poison_expiries=3, owner_depth_max=12, grace_ms=90_000),
    Server(idempotency_us=90_000_000, idempotency_keys_max=4),
    Server(idempotency_us=20_000_000, idempotency_keys_max=3, owner_depth_max=25),
]


def token_of(draw: Draw, job: Job) -> str | None:
    """A token for the job, mostly the right one."""
    right = [job.token] * 12 if job.token else []
    return draw.pick([None, FORGED_TOKEN, "", "x", *job.tokens[-6:], *right])


def text_token_of(draw: Draw, job: Job) -> str:
    return token_of(draw, job) or ""


def some_job(world: World, draw: Draw, fits: Callable[[Job], bool] = lambda job: True) -> Job | None:
    """A job that fits, if there is one; else any job."""
    jobs = list(world.model.jobs.values())
    return draw.pick([job for job in jobs if fits(job)] or jobs) if jobs else None


def runs(job: Job) -> bool:
    return job.state == "RUNNING"


def new_job(world: World, draw: Draw) -> New:
    delay_us = draw.pick(DELAYS_US)
    plain = New(
        payload=draw.pick(PAYLOADS),
        max_retries=draw.pick([0, 1, 2, 3, 6]),
        priority=draw.pick(PRIORITIES),
        run_at_us=draw.pick([0, world.now_us + delay_us]),
        queue=draw.pick(QUEUES),
    )
    if draw.pick([True, False]):
        return plain
    options: dict[str, Any] = {
        "group": draw.pick(GROUPS),
        "lease_ms": draw.pick([0, 0, 3_000]),
        "backoff": draw.pick(BACKOFFS),
        "expires_us": draw.pick([0, 0, 0, world.now_us + 900_000, world.now_us + 40_000_000, world.now_us - 1]),
        "unique_key": draw.pick(UNIQUE_KEYS),
        "replace": draw.pick([True, False]),
        "tags": draw.pick(TAGS),
        "traceparent": draw.pick(["", "00-1-2-03"]),
        "idempotency_key": draw.pick(IDEMPOTENCY_KEYS),
        "body_digest": draw.pick([7, 7, 7, 7, 8]),
    }
    return New(**vars(plain) | options)


def new_ack(world: World, draw: Draw, job: Job) -> Ack:
    outcome = draw.pick(OUTCOMES)
    return Ack(
        job.job_id,
        token_of(draw, job),
        outcome,
        draw.pick(RESULTS),
        draw.pick(ERRORS) if outcome != "ok" else "",
        draw.pick(["", "E42"]),
        draw.pick([0, 1500] if outcome == "snooze" else [-1, -1, 0, 1500]),
        draw.pick(JITTERS),
    )


def submit(world: World, draw: Draw) -> None:
    world.submit([new_job(world, draw)], draw.pick(OWNERS))


def submit_many(world: World, draw: Draw) -> None:
    world.submit([new_job(world, draw) for _ in range(draw.pick([0, 2, 2, 3]))], draw.pick(OWNERS))


def lease(world: World, draw: Draw) -> None:
    world.lease(
        draw.pick(QUEUES_ASKED),
        draw.pick([1, 1, 1, 3, 7]),
        draw.pick(LEASES_MS),
        worker_id=draw.pick(WORKERS),
        legacy=draw.pick([True, False, False]),
        request_id=draw.pick(REQUESTS),
        bytes_max=draw.pick([1 << 40, 1 << 40, 1, 400]),
    )


def ack(world: World, draw: Draw) -> None:
    if job := some_job(world, draw, runs):
        world.ack(new_ack(world, draw, job))


def ack_again(world: World, draw: Draw) -> None:
    """Repeat an earlier ack, sometimes with a small change."""
    words = {"ok": "ok", "error": "error", "discarded": "discard", "snoozed": "snooze", "released": "release"}
    if (job := some_job(world, draw, lambda job: bool(job.closings))) and job.closings:
        token, outcome, error, result = draw.pick(job.closings)
        other = draw.pick(["", "", "", "result", "error", "outcome", "token"])
        world.ack(
            Ack(
                job.job_id,
                draw.pick(job.tokens) if other == "token" else token,
                "ok" if other == "outcome" else words[outcome],
                b"1" if other == "result" else result or None,
                error + "!" if other == "error" else error,
                draw.pick(["", "E43"]),
                draw.pick([0, 7]),
            )
        )


def ack_many(world: World, draw: Draw) -> None:
    jobs = [some_job(world, draw, runs) for _ in range(draw.pick([0, 1, 2, 4]))]
    world.ack_many([new_ack(world, draw, job) for job in jobs if job])


def extend(world: World, draw: Draw) -> None:
    if job := some_job(world, draw, runs):
        world.extend(job.job_id, text_token_of(draw, job), draw.pick([1000, 5000, 60_000]))


def heartbeat(world: World, draw: Draw) -> None:
    jobs = [job for _ in range(draw.pick([0, 1, 3])) if (job := some_job(world, draw, runs))]
    leases = [(job.job_id, text_token_of(draw, job)) for job in jobs] + draw.pick([[], [("nope", "")]])
    world.extend_many(leases, draw.pick(LEASES_MS))


def report(world: World, draw: Draw) -> None:
    if job := some_job(world, draw, runs):
        world.report(job.job_id, text_token_of(draw, job), draw.pick([0, 50, 100]), draw.pick(["", "half", "é"]))


def undelivered(world: World, draw: Draw) -> None:
    if job := some_job(world, draw, runs):
        world.undelivered(job.job_id, text_token_of(draw, job))


def unreadable(world: World, draw: Draw) -> None:
    if job := some_job(world, draw, runs):
        world.unreadable(job.job_id, text_token_of(draw, job), draw.pick(["its check does not fit", "é" * 1500]))


def transact(world: World, draw: Draw) -> None:
    jobs = {job.job_id: job for _ in range(draw.pick([0, 1, 2, 3])) if (job := some_job(world, draw, runs))}
    acks, extends = [], []
    for job in jobs.values():
        if draw.pick([True, True, False]):
            acks.append(new_ack(world, draw, job))
        else:
            extends.append((job.job_id, text_token_of(draw, job), draw.pick([1000, 60_000])))
    news = [new_job(world, draw) for _ in range(draw.pick([0, 1, 1, 2]))]
    world.transact(acks, extends, news, draw.pick(["", "", *IDEMPOTENCY_KEYS[4:]]), draw.pick([7, 7, 8]))


def cancel(world: World, draw: Draw) -> None:
    if job := some_job(world, draw, draw.pick([runs, lambda job: job.waits, lambda job: True])):
        world.cancel(job.job_id, draw.pick([True, False, False]))


def redrive(world: World, draw: Draw) -> None:
    if job := some_job(world, draw, lambda job: job.state == "DEAD"):
        world.redrive(job.job_id)


def edit(world: World, draw: Draw) -> None:
    changes: dict[str, Any] = {
        "payload": draw.pick(PAYLOADS),
        "priority": draw.pick(PRIORITIES),
        "run_at_us": world.now_us + draw.pick(DELAYS_US),
        "queue": draw.pick(QUEUES),
    }
    chosen = {name: value for name, value in changes.items() if draw.pick([True, False])}
    if job := some_job(world, draw, draw.pick([lambda job: job.waits, lambda job: job.state == "DEAD"])):
        world.edit(job.job_id, **chosen)


def delete(world: World, draw: Draw) -> None:
    jobs = [some_job(world, draw, lambda job: not runs(job)) for _ in range(draw.pick([0, 1, 1, 3, 5]))]
    world.delete([job.job_id for job in jobs if job])


def change_by_filter(world: World, draw: Draw) -> None:
    """A slice of a bulk change: one record."""
    jobs = [job for _ in range(draw.pick([0, 1, 3])) if (job := some_job(world, draw))]
    change = draw.pick([world.cancel, world.redrive])
    world.in_group([lambda job=job: change(job.job_id) for job in jobs])  # type: ignore[misc]


def watch(world: World, draw: Draw) -> None:
    if job := some_job(world, draw, lambda job: not job.finished):
        world.watch(job.job_id)
        if draw.pick([True, False, False]):
            world.unwatch(job.job_id)


def configure_queue(world: World, draw: Draw, name: str = "") -> None:
    rate_n = draw.pick([0, 0, 0, 1, 3])
    settings = Settings(
        paused=draw.pick([True, False, False, False, False]),
        fair=draw.pick([True, True, False]),
        concurrency=draw.pick([0, 0, 0, 1, 3]),
        group_concurrency=draw.pick([0, 0, 1, 2]),
        rate_n=rate_n,
        rate_per_ms=draw.pick([1000, 2000]) if rate_n else 0,
        lease_ms=draw.pick([0, 0, 7000]),
        backoff=draw.pick(BACKOFFS),
        retention_acked_ms=draw.pick([-1, -1, 0, 1000]),
        retention_dead_ms=draw.pick([-1, -1, 0, 1000]),
        finished_max=draw.pick([-1, -1, 0, 2]),
        max_depth=draw.pick([0, 0, 0, 8]),
    )
    world.configure_queue(name or draw.pick([*QUEUES, "none"]), draw.pick([settings, settings, settings, None]))


def draws_of(draw: Draw) -> Iterator[float]:
    while True:
        yield draw.pick(JITTERS)


def expire(world: World, draw: Draw) -> None:
    world.expire(draws_of(draw), draw.pick([1_000_000, 1_000_000, 1, 3]))


def forget(world: World, draw: Draw) -> None:
    kept_ms = draw.pick([0, 1, 1000, 40_000])
    world.forget(kept_ms, draw.pick([0, 2, 99]), draw.pick([1, 3, 1_000_000]))


def look(world: World, draw: Draw) -> None:
    wanted = Filter(
        state=draw.pick(SHOWN),
        queue=draw.pick(["", "", *QUEUES]),
        group=draw.pick([None, None, *GROUPS]),
        tag=draw.pick(["", "", "red", "blue"]),
        since_us=draw.pick([0, 0, world.now_us - 1_000_000]),
        begun=draw.pick([False, False, True]),
        failed=draw.pick([False, False, True]),
    )
    access = Access(
        owner_id=draw.pick([None, None, "o1", "o2"]), queues=draw.pick([None, None, frozenset({"mail", "bulk"})])
    )
    agree_on_pages(world, access, wanted, draw.pick([1, 3, 50]), draw.pick([1, 4, 10_000]))
    agree_on_rising(world, access, wanted, draw.pick([1, 3, 50]), draw.pick([1, 4, 10_000]))
    agree_on_positions(world, access, draw.pick([1, 3, 1000]))


def documents(world: World, draw: Draw) -> None:
    name = draw.pick(["a", "b"])
    if draw.pick([True, False]):
        world.put_document(name, draw.pick(PAYLOADS))
    else:
        world.drop_document(name)


Action = Callable[[World, Draw], object]

COMMANDS: list[tuple[int, Action]] = [
    (14, submit),
    (4, submit_many),
    (26, lease),
    (20, ack),
    (4, ack_many),
    (5, ack_again),
    (3, extend),
    (2, heartbeat),
    (2, report),
    (3, undelivered),
    (1, unreadable),
    (5, transact),
    (4, cancel),
    (4, redrive),
    (5, edit),
    (2, delete),
    (1, change_by_filter),
    (2, watch),
    (3, configure_queue),
    (14, lambda world, draw: world.time_passes(draw.pick(STEPS_US))),
    (5, expire),
    (3, forget),
    (3, look),
    (2, documents),
    (2, lambda world, draw: world.forget_keys(draw.pick([1, 2, 1000]))),
    (1, lambda world, draw: world.stranger(draw.pick(STRANGERS))),
]
"""The actions of clients, operators and the timer, with their weights."""

ACTIONS: list[tuple[int, Action]] = [
    *COMMANDS,
    (6, lambda world, draw: world.sync()),
    (2, lambda world, draw: world.clean_oldest(draw.pick(CLEANS))),
    (1, lambda world, draw: world.crash(draw.pick(SERVERS))),
    (1, lambda world, draw: world.restart(draw.pick(SERVERS))),
]
"""These actions, and those on the log."""
