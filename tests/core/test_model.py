"""The core against the model: random commands, with crashes and restarts among them, must leave both in one state."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fastq._core import Core, Tail
from tests.core.model import Job
from tests.core.world import FORGED_TOKEN, START_US, World

STEPS = int(os.environ.get("FASTQ_MODEL_STEPS", "60"))
EXAMPLES = int(os.environ.get("FASTQ_MODEL_EXAMPLES", "150"))
WALKS = int(os.environ.get("FASTQ_MODEL_WALKS", "100"))
WALK_STEPS = 400

PAYLOADS = [b'"x"', b"17", b'{"a":[1,2]}', b'"' + b"y" * 3000 + b'"']
ERRORS = ["", "boom", "boom", "\u00e9" * 1500]
RESULTS = [None, b'"done"', b"{}"]
PRIORITIES = [0, 0, 0, 5, -3, 2**31 - 1, -(2**31)]
DELAYS_US = [0, 0, -5, 1_500_000]
QUEUES = ["default", "default", "mail"]
QUEUES_ASKED = [["default"], ["default"], ["mail"], ["mail", "default"], ["none", "default", "mail"]]
REQUESTS = ["", "", "r1", "r2"]
CLEANS = ["move", "trim", "drop", "drop"]
LEASES_MS = [1000, 5000, 60_000]
STEPS_US = [0, 1, 999, 1_000_000, 2_500_000, 40_000_000]
STRANGERS = ["", "nope", "018bcfe5-6800-707b-8000-000001646464", "\u00e9" * 36, "0" * 36]


def tokens_to_try(job: Job) -> list[str | None]:
    """Mostly the right one."""
    right = [job.token] * 5 if job.token else []
    return [None, FORGED_TOKEN, "", "x", *job.tokens[-6:], *right]


class CoreAgainstModel(RuleBasedStateMachine):
    """Hypothesis chooses, and shrinks what fails."""

    world: World

    @initialize()
    def begin(self) -> None:
        self.world = World()

    @rule(step_us=st.sampled_from(STEPS_US))
    def time_passes(self, step_us: int) -> None:
        self.world.time_passes(step_us)

    @rule(
        payload=st.sampled_from(PAYLOADS),
        priority=st.sampled_from(PRIORITIES),
        max_retries=st.integers(0, 6),
        delay_us=st.sampled_from(DELAYS_US),
        queue=st.sampled_from(QUEUES),
    )
    def submit(self, payload: bytes, priority: int, max_retries: int, delay_us: int, queue: str) -> None:
        self.world.submit(payload, priority, max_retries, delay_us, queue)

    @rule(
        payloads=st.lists(st.sampled_from(PAYLOADS), max_size=4),
        priority=st.sampled_from(PRIORITIES),
        max_retries=st.integers(0, 6),
        queue=st.sampled_from(QUEUES),
    )
    def submit_many(self, payloads: list[bytes], priority: int, max_retries: int, queue: str) -> None:
        self.world.submit_many(payloads, priority, max_retries, queue)

    @rule(
        lease_ms=st.sampled_from(LEASES_MS),
        legacy=st.booleans(),
        queues=st.sampled_from(QUEUES_ASKED),
        limit=st.sampled_from([1, 1, 3]),
        request_id=st.sampled_from(REQUESTS),
    )
    def lease(self, lease_ms: int, legacy: bool, queues: list[str], limit: int, request_id: str) -> None:
        self.world.lease(lease_ms, legacy, queues, limit, request_id)

    @precondition(lambda self: self.world.model.jobs)
    @rule(data=st.data(), error=st.sampled_from(ERRORS), result=st.sampled_from(RESULTS))
    def ack(self, data: st.DataObject, error: str, result: bytes | None) -> None:
        job = data.draw(st.sampled_from(list(self.world.model.jobs.values())))
        self.world.ack(job.job_id, data.draw(st.sampled_from(tokens_to_try(job))), error, result)

    @precondition(lambda self: any(job.closings for job in self.world.model.jobs.values()))
    @rule(data=st.data())
    def ack_again(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from([job for job in self.world.model.jobs.values() if job.closings]))
        token, error, result = data.draw(st.sampled_from(job.closings))
        self.world.ack(job.job_id, token, error, result or None)

    @precondition(lambda self: self.world.model.jobs)
    @rule(data=st.data())
    def ack_many(self, data: st.DataObject) -> None:
        jobs = data.draw(st.lists(st.sampled_from(list(self.world.model.jobs.values())), max_size=4))
        draw = [(job, data.draw(st.sampled_from(tokens_to_try(job)))) for job in jobs]
        self.world.ack_many([(job.job_id, token, None, "") for job, token in draw])

    @precondition(lambda self: any(job.tokens for job in self.world.model.jobs.values()))
    @rule(data=st.data(), lease_ms=st.sampled_from([*LEASES_MS, 0]))
    def extend_or_return(self, data: st.DataObject, lease_ms: int) -> None:
        job = data.draw(st.sampled_from([job for job in self.world.model.jobs.values() if job.tokens]))
        token = data.draw(st.sampled_from(job.tokens[-3:]))
        if lease_ms:
            self.world.extend(job.job_id, token, lease_ms)
        else:
            self.world.undelivered(job.job_id, token)

    @rule(
        state=st.sampled_from(["ACKED", "DEAD"]),
        age_us=st.sampled_from(STEPS_US),
        count_max=st.sampled_from([0, 2, 99]),
    )
    def forget(self, state: str, age_us: int, count_max: int) -> None:
        self.world.forget(state, age_us, count_max)

    @rule(stop_after=st.sampled_from(CLEANS))
    def clean(self, stop_after: str) -> None:
        self.world.clean(stop_after)

    @rule(job_id=st.sampled_from(STRANGERS))
    def stranger(self, job_id: str) -> None:
        self.world.stranger(job_id)

    @rule()
    def expire(self) -> None:
        self.world.expire()

    @rule(name=st.sampled_from(["a", "b"]), body=st.binary(max_size=40))
    def put_document(self, name: str, body: bytes) -> None:
        self.world.put_document(name, body)

    @rule(name=st.sampled_from(["a", "b"]))
    def drop_document(self, name: str) -> None:
        self.world.drop_document(name)

    @rule()
    def sync(self) -> None:
        self.world.sync()

    @rule()
    def crash(self) -> None:
        self.world.crash()

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "world"):
            self.world.agree()
            self.world.due()


CoreAgainstModel.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
test_core_against_model = CoreAgainstModel.TestCase


def walk(seed: int) -> None:
    """One long history with weights that take jobs through whole lives, which Hypothesis rarely finds."""
    rng = random.Random(seed)
    world = World()
    pick = rng.choice

    def ack() -> None:
        if jobs := list(world.model.jobs.values()):
            job = pick([job for job in jobs if job.state == "RUNNING"] or jobs)
            world.ack(job.job_id, pick(tokens_to_try(job)), pick(ERRORS), pick(RESULTS))

    def ack_again() -> None:
        closings = [(job.job_id, *closing) for job in world.model.jobs.values() for closing in job.closings]
        forgotten = [(job.job_id, token, "", b"") for job in world.model.jobs.values() for token in job.tokens]
        if closings and forgotten:
            job_id, token, error, result = pick([pick(closings), pick(forgotten)])
            world.ack(job_id, token, error, result or None)

    def ack_many() -> None:
        if jobs := list(world.model.jobs.values()):
            chosen = rng.choices([job for job in jobs if job.state == "RUNNING"] or jobs, k=rng.randrange(5))
            world.ack_many([(job.job_id, pick(tokens_to_try(job)), pick(RESULTS), pick(ERRORS)) for job in chosen])

    def extend_or_return() -> None:
        if jobs := [job for job in world.model.jobs.values() if job.tokens]:
            job = pick([job for job in jobs if job.state == "RUNNING"] or jobs)
            if rng.random() < 0.5:
                world.extend(job.job_id, pick(job.tokens[-2:]), pick(LEASES_MS))
            else:
                world.undelivered(job.job_id, pick(job.tokens[-2:]))

    actions: list[tuple[int, Callable[[], object]]] = [
        (6, lambda: world.submit(pick(PAYLOADS), pick(PRIORITIES), rng.randrange(7), pick(DELAYS_US), pick(QUEUES))),
        (2, lambda: world.submit_many(rng.choices(PAYLOADS, k=rng.randrange(5)), 0, rng.randrange(7), pick(QUEUES))),
        (12, lambda: world.lease(pick(LEASES_MS), rng.random() < 0.3, pick(QUEUES_ASKED), 1, pick(REQUESTS))),
        (2, lambda: world.lease(pick(LEASES_MS), False, pick(QUEUES_ASKED), 3, pick(REQUESTS))),
        (12, ack),
        (2, ack_many),
        (3, extend_or_return),
        (2, lambda: world.forget(pick(["ACKED", "DEAD"]), pick(STEPS_US), pick([0, 2, 99]))),
        (2, lambda: world.clean(pick(CLEANS))),
        (4, ack_again),
        (8, lambda: world.time_passes(pick(STEPS_US))),
        (3, world.expire),
        (4, world.sync),
        (1, world.crash),
        (1, world.restart),
        (1, lambda: world.put_document(pick("ab"), rng.randbytes(30))),
        (1, lambda: world.drop_document(pick("ab"))),
        (1, lambda: world.stranger(pick(STRANGERS))),
    ]
    weights = [weight for weight, _ in actions]
    for step in range(WALK_STEPS):
        rng.choices(actions, weights)[0][1]()
        if step % 8 == 0:
            world.agree()
            world.due()


def test_core_against_model_on_long_walks() -> None:
    for seed in range(WALKS):
        try:
            walk(seed)
        except BaseException as failure:
            failure.add_note(f"walk({seed})")
            raise


def test_a_deep_backlog_comes_out_in_exact_order() -> None:
    """Ten thousand jobs of few priorities and times, pushed and popped at random, against a sorted list."""
    rng = random.Random(7)
    tail = Tail(512, 1 << 20, 1 << 20)
    core = Core(tail)
    for number in range(1, 9):
        tail.offer_segment(number, 4096, 16 << 20)
    core.identify(b"d" * 16)
    waiting: list[tuple[int, int, int, str]] = []
    now_us = START_US
    for step in range(20_000):
        now_us += rng.randrange(3)
        if rng.random() < 0.6 or not waiting:
            priority = rng.randrange(-2, 3)
            job_id = core.submit(now_us, b"1", owner_id="o", key_id="k", max_retries=1, priority=priority)
            waiting.append((-priority, now_us, step, job_id))
        else:
            first = min(waiting)
            waiting.remove(first)
            (leased,) = core.lease(now_us, ["default"], 1, lease_ms=1000, key_id="k")
            assert leased.job_id == first[3]
    core.check()
