"""Ack, over a real socket: every outcome, one and several."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.resources.requests import ack, leased_job, post
from tests.http.world import World, running


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/jobs/ack", {"acks": [{"lease_token": "x"}]}, "acks[0]: job_id is required"),
        (
            "/jobs/ack",
            {"acks": [{"job_id": "x", "outcome": "maybe"}]},
            "acks[0]: outcome must be ok, error, discard, snooze or release",
        ),
    ],
)
async def test_bad_input_is_named(world: World, path: str, body: Any, message: str) -> None:
    reply = await post(world, path, body, who="worker")
    assert (reply.status, reply.error) == (400, message)


async def test_discard_ends_a_job_at_once(world: World) -> None:
    leased = await leased_job(world, max_retries=9)
    assert (await ack(world, leased, outcome="discard", error_code="bad-mail")).status == 200
    shown = await world.show(leased["job_id"])
    assert (shown["state"], shown["outcome"], shown["result_error"]) == ("DEAD", "discarded", "discarded")
    (attempt,) = (await world.call("client", "GET", f"/jobs/{leased['job_id']}/attempts")).json["attempts"]
    assert (attempt["outcome"], attempt["error_code"], attempt["number"]) == ("discarded", "bad-mail", 1)


async def test_snooze_and_release_give_the_attempt_back(world: World) -> None:
    leased = await leased_job(world, max_retries=1)
    job_id = leased["job_id"]
    assert (await ack(world, leased, outcome="snooze", delay_ms=5000)).status == 200
    shown = await world.show(job_id)
    assert (shown["state"], shown["attempts"], shown["outcome"]) == ("SCHEDULED", 0, "snoozed")
    world.hands.ahead_us += 5_000_000
    leased = await world.lease({})
    assert leased["attempt"] == 1
    assert (await ack(world, leased, outcome="release")).status == 200
    assert (await world.show(job_id))["state"] == "READY"
    assert (await ack(world, leased, outcome="release")).status == 200, "said again, answered again"
    attempts = (await world.call("client", "GET", f"/jobs/{job_id}/attempts")).json["attempts"]
    assert [(one["number"], one["outcome"]) for one in attempts] == [(2, "released"), (1, "snoozed")]


async def test_retry_after_ms(world: World) -> None:
    leased = await leased_job(world)
    await ack(world, leased, outcome="error", retry_after_ms=7000)
    assert (await world.call("worker", "POST", "/jobs/lease")).status == 404
    world.hands.ahead_us += 7_000_000
    assert (await world.lease({}))["job_id"] == leased["job_id"]


async def test_all_outcomes_in_one_batch(world: World) -> None:
    jobs = [await leased_job(world) for _ in range(5)]
    more: list[dict[str, Any]] = [
        {"outcome": "ok", "result": 1},
        {"outcome": "error", "result_error": "boom", "error_code": "E1", "retry_after_ms": 60_000},
        {"outcome": "discard", "result_error": "never"},
        {"outcome": "snooze", "delay_ms": 60_000},
        {"outcome": "release"},
    ]
    acks = [
        {"job_id": job["job_id"], "lease_token": job["lease_token"], **fields}
        for job, fields in zip(jobs, more, strict=True)
    ]
    reply = await post(world, "/jobs/ack", {"acks": acks})
    assert all(result["ok"] for result in reply.json["results"])
    states = [(await world.show(job["job_id"]))["state"] for job in jobs]
    assert states == ["ACKED", "RETRY", "DEAD", "SCHEDULED", "READY"]


async def test_a_job_that_expires_too_often_is_dead() -> None:
    async with running(poison_expiries=2, lease_check_ms=10) as world:
        job_id = await world.submit(max_retries=100, backoff={"base_ms": 1, "factor": 1, "cap_ms": 1})
        for _ in range(2):
            world.hands.ahead_us += 1_000_000
            await world.lease({"wait_ms": 10_000, "lease_ms": 1000})
            world.hands.ahead_us += 1_000_001
        shown = (await world.call("client", "GET", f"/jobs/{job_id}?wait_ms=10000")).json
        assert (shown["state"], shown["outcome"], shown["result_error"]) == ("DEAD", "poisoned", "poisoned")
