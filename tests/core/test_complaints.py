"""Frequent complaints about other queues, one test each.

Each test runs on the core and the model, and asserts what the user sees.
"""

from __future__ import annotations

from itertools import repeat

import pytest

from fastq._core import ALL, CREATED, DUPLICATE, REPEATED
from fastq.clock import Clock, start_us
from tests.core.agreement import agree
from tests.core.model import Server
from tests.core.model_jobs import Ack, Job, New
from tests.core.model_order import Settings
from tests.core.world import START_US, World

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US


def submit(world: World, **fields: object) -> str:
    ((job_id, how),) = world.submit([New(**fields)])  # type: ignore[arg-type]
    assert how == CREATED
    return str(job_id)


def lease(world: World, lease_ms: int = 30_000, worker_id: str = "w1") -> tuple[Job, str]:
    (token,) = world.lease(["default"], 1, lease_ms, worker_id=worker_id)
    return next(job for job in world.model.jobs.values() if job.token == token), token


def pass_and_expire(world: World, step_us: int) -> None:
    world.time_passes(step_us)
    world.expire(repeat(0.5))
    agree(world, 0)


def state(world: World, job_id: str) -> str:
    agree(world, 0)
    return world.core.job(world.now_us, ALL, job_id).state


def test_a_worker_killed_while_running_gives_its_job_to_another_after_the_lease() -> None:
    world = World()
    job_id = submit(world, max_retries=3)
    lease(world, 30_000)
    pass_and_expire(world, 29_999_999)
    assert state(world, job_id) == "RUNNING" and world.lease(["default"]) == []
    pass_and_expire(world, 1)
    view = world.core.job(world.now_us, ALL, job_id)
    assert (view.state, view.attempts, view.outcome) == ("RETRY", 1, "lease_expired")
    pass_and_expire(world, SECOND_US)
    job, token = lease(world, worker_id="w2")
    assert job.job_id == job_id and world.ack(Ack(job_id, token)) is True
    assert [(event.worker_id, event.outcome) for event in job.history] == [("w2", "ok"), ("w1", "lease_expired")]


def test_a_lease_survives_a_kill_of_worker_and_server_until_its_deadline() -> None:
    world = World()
    job_id = submit(world)
    _, token = lease(world, 10_000)
    world.sync()
    world.time_passes(HOUR_US)
    world.crash()
    pass_and_expire(world, 9_000_000)
    assert world.ack(Ack(job_id, token)) is True and state(world, job_id) == "ACKED"


def test_a_late_ack_after_expiry_is_refused_and_changes_nothing() -> None:
    world = World()
    job_id = submit(world, max_retries=3)
    _, late = lease(world, 1_000)
    pass_and_expire(world, 2 * SECOND_US)
    assert world.ack(Ack(job_id, late)) == "LeaseLost"
    pass_and_expire(world, 2 * SECOND_US)
    _, token = lease(world)
    assert world.ack(Ack(job_id, late)) == "LeaseLost", "the first worker must not end the second one's lease"
    assert state(world, job_id) == "RUNNING"
    assert world.ack(Ack(job_id, token, result=b'"second"')) is True
    assert world.ack(Ack(job_id, late, result=b'"first"')) == "LeaseLost"


def test_a_late_ack_before_the_expiry_is_logged_still_counts() -> None:
    world = World()
    job_id = submit(world)
    _, token = lease(world, 1_000)
    world.time_passes(10 * SECOND_US)
    assert world.ack(Ack(job_id, token)) is True


def test_a_double_ack_ends_one_attempt() -> None:
    world = World()
    job_id = submit(world, max_retries=2)
    _, token = lease(world)
    assert world.ack(Ack(job_id, token, "error", error="boom", wait_ms=0)) is True
    assert world.ack(Ack(job_id, token, "error", error="boom", wait_ms=0)) is False
    assert world.core.job(world.now_us, ALL, job_id).attempts == 1
    assert world.ack(Ack(job_id, token)) == "LeaseLost", "it ended with an error, not with this outcome"
    assert world.ack_many([Ack(job_id, token, "error", error="boom")] * 3) == ["", "", ""]
    _, token = lease(world)
    assert world.ack_many([Ack(job_id, token)] * 2) == ["", ""]
    assert len(world.model.jobs[job_id].history) == 2
    agree(world, 0)


def test_a_repeated_ack_is_recognized_for_four_attempts() -> None:
    world = World()
    job_id = submit(world, max_retries=100)
    said = []
    for n in range(7):
        _, token = lease(world)
        said.append(Ack(job_id, token, "error", error=f"boom {n}", wait_ms=0))
        assert world.ack(said[-1]) is True
    for restarted in (False, True):
        assert [world.ack(ack) for ack in said] == ["LeaseLost"] * 3 + [False] * 4
        if not restarted:
            world.restart()


@pytest.mark.parametrize("crash", [False, True])
def test_a_repeated_request_gets_the_same_answer(crash: bool) -> None:
    """Repeat a submit, a batch, a lease, an ack and a transaction, also after a crash."""
    world = World()

    def lost() -> None:
        world.sync()
        if crash:
            world.crash()

    new = New(idempotency_key="once", body_digest=7)
    ((job_id, _),) = world.submit([new])
    lost()
    assert world.submit([new]) == [(job_id, REPEATED)]
    assert world.submit([New(idempotency_key="once", body_digest=8)]) == "IdempotencyMismatch"
    (token,) = world.lease(["default"], request_id="r1")
    lost()
    assert world.lease(["default"], request_id="r1") == [token], "the same lease, not another"
    child = New(payload=b'"child"')
    ended = Ack(job_id, token, result=b"1")
    _, children, _ = world.transact([ended], [], [child], "t1", 5)
    lost()
    assert world.transact([ended], [], [child], "t1", 5) == ([], children, True)
    assert world.ack(Ack(job_id, token, result=b"1")) is False
    assert len(world.model.jobs) == 2
    agree(world, 0)


def test_a_poison_job_that_kills_its_workers_stops() -> None:
    world = World(Server(poison_expiries=3))
    job_id = submit(world, max_retries=1000)
    for _ in range(3):
        lease(world, 1_000)
        pass_and_expire(world, 2 * SECOND_US)
        pass_and_expire(world, HOUR_US)
    view = world.core.job(world.now_us, ALL, job_id)
    assert (view.state, view.outcome, view.attempts) == ("DEAD", "poisoned", 3)
    world.redrive(job_id)
    lease(world, 1_000)
    pass_and_expire(world, 2 * SECOND_US)
    assert state(world, job_id) == "RETRY", "a redrive begins to count anew"


def test_a_poison_job_that_only_fails_now_and_then_goes_on() -> None:
    world = World(Server(poison_expiries=2))
    job_id = submit(world, max_retries=1000)
    for _ in range(5):
        lease(world, 1_000)
        pass_and_expire(world, 2 * SECOND_US)
        pass_and_expire(world, HOUR_US)
        _, token = lease(world)
        world.ack(Ack(job_id, token, "error", error="boom", wait_ms=0))
    assert state(world, job_id) == "RETRY"


def test_clock_set_back_an_hour_while_running_neither_ends_nor_keeps_a_lease() -> None:
    wall_us = monotonic_us = START_US
    clock = Clock(START_US, lambda: monotonic_us, lambda: wall_us)
    world = World()
    job_id = submit(world, max_retries=3)
    lease(world, 30_000)
    wall_us -= HOUR_US
    before_us = clock.now_us()
    passed_us = 0
    while state(world, job_id) == "RUNNING":
        monotonic_us += SECOND_US
        wall_us += SECOND_US
        passed_us += SECOND_US
        now_us = clock.now_us()
        assert now_us >= before_us, "logical time went back"
        pass_and_expire(world, now_us - before_us)
        before_us = now_us
    assert 30 * SECOND_US <= passed_us <= 34 * SECOND_US, (
        "a lease lasts as long as it was granted for, and at most a tenth more"
    )


def test_clock_set_back_an_hour_before_a_restart_loses_no_time() -> None:
    world = World()
    submit(world, run_at_us=START_US + 10 * SECOND_US)
    pass_and_expire(world, 5 * SECOND_US)
    world.sync()
    wall_us = world.now_us - HOUR_US
    assert start_us(world.core.last_us, wall_us, False) >= START_US
    job_id = submit(world)
    assert lease(world)[0].job_id == job_id


def test_clock_set_back_and_accepted_goes_on_from_the_wall() -> None:
    """Keys, leases and due jobs stay as they were, and time follows the wall clock from then on."""
    world = World()
    job_id = submit(world, max_retries=1)
    _, token = lease(world, 30_000)
    world.sync()
    last_us = world.core.last_us
    wall_us = world.now_us - 5 * HOUR_US
    world.now_us = start_us(last_us, wall_us, True)
    world.crash()
    assert world.core.last_us == wall_us < last_us, "the next start would be told to wait for five hours"
    new = New(idempotency_key="k", body_digest=1, run_at_us=wall_us + SECOND_US)
    ((later, _),) = world.submit([new])
    assert world.submit([new]) == [(later, REPEATED)]
    assert world.lease(["default"]) == []
    world.time_passes(2 * SECOND_US)
    assert lease(world)[0].job_id == later
    assert world.ack(Ack(job_id, token)) is True
    world.restart()
    assert world.submit([new]) == [(later, REPEATED)]
    agree(world, 0)


@pytest.mark.parametrize("end", ["discard", "error", "cancel", "expire", "delete", "ok"])
def test_unique_key_after_failure_is_free_again(end: str) -> None:
    world = World()
    expires_us = START_US + SECOND_US if end == "expire" else 0
    new = New(unique_key="invoice-7", max_retries=1, expires_us=expires_us)
    job_id = submit(world, unique_key="invoice-7", max_retries=1, expires_us=expires_us)
    assert world.submit([new]) == [(job_id, DUPLICATE)]
    if end == "cancel":
        world.cancel(job_id)
    elif end == "delete":
        world.delete([job_id])
    elif end == "expire":
        pass_and_expire(world, SECOND_US)
    else:
        _, token = lease(world)
        assert world.submit([new]) == [(job_id, DUPLICATE)]
        world.ack(Ack(job_id, token, end, error="" if end == "ok" else "boom"))
    ((other, how),) = world.submit([New(unique_key="invoice-7")])
    assert how == CREATED and other != job_id
    if end in ("discard", "error"):
        assert world.redrive(job_id) == "JobDuplicate"
        world.delete([other])
        world.redrive(job_id)
        assert world.submit([new]) == [(job_id, DUPLICATE)]


def test_unique_key_while_a_failed_job_waits_for_its_retry_is_still_held() -> None:
    world = World()
    job_id = submit(world, unique_key="u", max_retries=5)
    _, token = lease(world)
    world.ack(Ack(job_id, token, "error", error="boom", wait_ms=60_000))
    assert world.submit([New(unique_key="u")]) == [(job_id, DUPLICATE)]


def test_a_paused_queue_leases_nothing_says_why_and_resumes() -> None:
    world = World()
    jobs = [submit(world, priority=priority) for priority in (0, 2, 1)]
    held, token = lease(world)
    world.configure_queue("default", Settings(paused=True))
    assert world.lease(["default"]) == [] and world.lease({"default": 1}) == []
    assert world.core.blocked_by(world.now_us, "default", "") == "paused"
    assert world.ack(Ack(held.job_id, token)) is True, "what runs may end"
    late = submit(world, priority=3)
    world.core.take_touched()
    world.configure_queue("default", Settings())
    order = [lease(world)[0].job_id for _ in range(3)]
    assert order == [late, jobs[2], jobs[0]]


def test_one_tenant_flooding_does_not_keep_the_others_waiting() -> None:
    world = World()
    world.configure_queue("default", Settings(fair=True, group_concurrency=2))
    for _ in range(200):
        submit(world, group="flood", priority=9)
    small = [submit(world, group=f"tenant{k}") for k in range(5)]
    first = [lease(world)[0] for _ in range(7)]
    assert {job.job_id for job in first} >= set(small), "each was served within one round"
    assert [job.group for job in first].count("flood") == 2
    assert world.lease(["default"]) == []
    assert world.core.blocked_by(world.now_us, "default", "flood") == "group_concurrency"


def test_one_tenant_flooding_does_not_fill_the_queue_for_the_others() -> None:
    world = World(Server(owner_depth_max=3))
    for _ in range(3):
        world.submit([New()], "flooding")
    assert world.submit([New()], "flooding") == "OwnerFull"
    assert world.submit([New()], "other") != "OwnerFull"
    world.configure_queue("default", Settings(max_depth=4))
    assert world.submit([New()], "other") == "QueueFull"
    assert world.submit([New(queue="elsewhere")], "other") != "QueueFull"
