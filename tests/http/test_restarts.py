"""What a restart must not change, whatever the settings are by then: the log alone says what is there."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

from fastq.engine import EngineOptions
from tests.http.world import Hands, World, running

HOUR_US = 3_600_000_000
DAY_MS = 86_400_000

CHANGED: dict[str, tuple[Any, ...]] = {
    "lease_ms": (1_000, 43_200_000),
    "lease_check_ms": (10, 60_000),
    "max_retries": (0, 1000),
    "backoff_base_ms": (1, 30_000),
    "backoff_factor": (1.0, 9.5),
    "backoff_cap_ms": (30_000, DAY_MS),
    "owner_isolation": (True, False),
    "retention_acked_ms": (DAY_MS, 300 * DAY_MS),
    "retention_dead_ms": (DAY_MS, 300 * DAY_MS),
    "finished_jobs_max": (1_000, 10**9),
    "finished_bytes_max": (1 << 20, 1 << 40),
    "log_slack_bytes": (1 << 28, 1 << 40),
    "idempotency_ms": (2 * DAY_MS, 365 * DAY_MS),
    "idempotency_keys_max": (1_000, 10**9),
    "poison_expiries": (0, 255),
    "queues_max": (1_000_000, 100),
    "owner_depth_max": (0, 100),
}
"""Every option, and values that forget nothing of what the test makes."""


async def submit_keyed(world: World, key: str, payload: Any = "work") -> tuple[int, str]:
    reply = await world.call("client", "POST", "/jobs", {"payload": payload, "idempotency_key": key})
    return reply.status, reply.json["job_id"]


async def test_an_idempotency_key_survives_restarts_for_its_window() -> None:
    window_ms = 24 * 3_600_000
    async with running(idempotency_ms=window_ms) as world:
        _, first = await submit_keyed(world, "first")
        log, ahead_us = world.log.crash(), 0
    for number in range(3):
        ahead_us += 2 * HOUR_US
        async with running(log=log, hands=Hands(ahead_us), idempotency_ms=window_ms) as world:
            assert (await submit_keyed(world, f"other {number}"))[0] == 201
            assert await submit_keyed(world, "first") == (200, first)
            log = world.log.crash()


async def test_a_shorter_window_forgets_and_a_longer_one_does_not_bring_back() -> None:
    async with running(idempotency_ms=DAY_MS) as world:
        await submit_keyed(world, "old")
        log = world.log.crash()
    async with running(log=log, hands=Hands(2 * HOUR_US), idempotency_ms=3_600_000) as world:
        assert (await submit_keyed(world, "new"))[0] == 201
        await world.engine.durable()
        log = world.log.crash()
    async with running(log=log, hands=Hands(2 * HOUR_US), idempotency_ms=DAY_MS) as world:
        assert (await submit_keyed(world, "new"))[0] == 200
        assert (await submit_keyed(world, "old"))[0] == 201


async def test_jobs_keys_and_answers_are_the_same_after_restarts_with_every_setting_changed() -> None:
    assert set(CHANGED) == {field.name for field in dataclasses.fields(EngineOptions)}
    rng = random.Random(11)
    async with running(**options(rng)) as world:
        jobs = await some_of_everything(world)
        shown = {job_id: steady(await world.show(job_id)) for job_id in jobs.values()}
        log = world.log.crash()
    for _ in range(6):
        async with running(log=log, **options(rng)) as world:
            assert {job_id: steady(await world.show(job_id)) for job_id in jobs.values()} == shown
            for key, job_id in jobs.items():
                assert await submit_keyed(world, key, key) == (200, job_id)
            log = world.log.crash()


def options(rng: random.Random) -> dict[str, Any]:
    return {name: rng.choice(values) for name, values in CHANGED.items()}


async def some_of_everything(world: World) -> dict[str, str]:
    """Jobs in several states, by their idempotency keys."""
    jobs = {}
    for number in range(8):
        key = f"key {number}"
        _, jobs[key] = await submit_keyed(world, key, key)
    leased = [await world.lease({"lease_ms": 600_000}) for _ in range(4)]
    endings = ({"outcome": "ok", "result": 1}, {"outcome": "discard", "result_error": "boom"}, {"outcome": "release"})
    for lease, ending in zip(leased[1:], endings, strict=True):
        body = {"lease_token": lease["lease_token"], **ending}
        assert (await world.call("worker", "POST", f"/jobs/{lease['job_id']}/ack", body)).status == 200
    await world.call("client", "POST", f"/jobs/{jobs['key 7']}/cancel")
    return jobs


def steady(shown: dict[str, Any]) -> dict[str, Any]:
    """What no restart changes: all but the deadline of a lease, which may get a while."""
    return {name: value for name, value in shown.items() if name != "lease_until"}
