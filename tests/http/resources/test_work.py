"""What workers say, over a real socket: outcomes, heartbeats, progress, weights, transactions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.http.wire import Reply, request_bytes
from tests.http.world import World, running


async def post(world: World, path: str, body: Any, who: str = "worker", key: str = "") -> Reply:
    return await world.call(who, "POST", path, body, (("Idempotency-Key", key),) if key else ())


async def leased_job(world: World, **fields: Any) -> dict[str, Any]:
    await world.submit(**fields)
    return await world.lease({"queues": [fields.get("queue", "default")]})


async def ack(world: World, leased: dict[str, Any], **body: Any) -> Reply:
    return await post(world, f"/jobs/{leased['job_id']}/ack", {"lease_token": leased["lease_token"], **body})


# --- outcomes ---------------------------------------------------------------------------------------------------------


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


async def test_a_poison_job_is_put_aside() -> None:
    async with running(poison_expiries=2, lease_check_ms=10) as world:
        job_id = await world.submit(max_retries=100, backoff={"base_ms": 1, "factor": 1, "cap_ms": 1})
        for _ in range(2):
            world.hands.ahead_us += 1_000_000
            await world.lease({"wait_ms": 10_000, "lease_ms": 1000})
            world.hands.ahead_us += 1_000_001
        shown = (await world.call("client", "GET", f"/jobs/{job_id}?wait_ms=10000")).json
        assert (shown["state"], shown["outcome"], shown["result_error"]) == ("DEAD", "poisoned", "poisoned")


# --- heartbeat, progress ----------------------------------------------------------------------------------------------


async def test_a_heartbeat_extends_what_is_held_and_says_what_is_not(world: World) -> None:
    held, lost, cancelled = [await leased_job(world) for _ in range(3)]
    await ack(world, lost)
    await world.call("client", "POST", f"/jobs/{cancelled['job_id']}/cancel")
    leases = [{"job_id": job["job_id"], "lease_token": job["lease_token"]} for job in (held, lost, cancelled)]
    leases.append({"job_id": "nope", "lease_token": "x"})
    body = {"worker_id": "w1", "leases": leases, "lease_ms": 600_000}
    answered = (await post(world, "/workers/heartbeat", body)).json["leases"]
    assert [one["job_id"] for one in answered] == [lease["job_id"] for lease in leases]
    assert answered[0]["lease_until"] > held["lease_until"] and answered[0]["cancel_requested"] is False
    assert (answered[1]["code"], answered[1]["state"]) == ("lease_lost", "ACKED")
    assert answered[2]["cancel_requested"] is True
    assert answered[3]["code"] == "job_not_found"
    shorter = (await post(world, "/workers/heartbeat", body | {"lease_ms": 1000})).json["leases"]
    assert shorter[0]["lease_until"] == answered[0]["lease_until"], "a deadline never moves earlier"


async def test_progress_is_shown(world: World) -> None:
    leased = await leased_job(world)
    path, token = f"/jobs/{leased['job_id']}/progress", leased["lease_token"]
    reply = await post(world, path, {"lease_token": token, "percent": 40, "note": "half way"})
    assert reply.json == {"job_id": leased["job_id"], "cancel_requested": False}
    progress = (await world.show(leased["job_id"]))["progress"]
    assert (progress["percent"], progress["note"]) == (40, "half way")
    lost = await post(world, path, {"lease_token": "0" * 24, "percent": 41})
    assert (lost.status, lost.json["code"]) == (409, "lease_lost")


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/workers/heartbeat", {}, "worker_id is required"),
        ("/workers/heartbeat", {"worker_id": ""}, "worker_id must be 1 to 200 bytes"),
        ("/workers/heartbeat", {"worker_id": "w", "leases": [{"job_id": "x"}]}, "leases[0].lease_token is required"),
        ("/jobs/x/progress", {"lease_token": "x", "percent": 101}, "percent must be <= 100"),
        ("/jobs/x/progress", {"lease_token": "x", "percent": 1, "note": "n" * 201}, "note must be at most 200 bytes"),
        ("/transactions", {"ops": []}, "ops is required"),
        ("/transactions", {"ops": [{}]}, "ops[0]: one of ack, submit and extend is required, and no other"),
        ("/transactions", {"ops": [{"ack": {"job_id": "x"}}]}, "ops[0]: ack.lease_token is required"),
        ("/transactions", {"ops": [{"submit": {"payload": ""}}]}, "ops[0]: payload is required"),
        ("/transactions", {"ops": [{"submit": {"payload": 1}}] * 1001}, "ops must be of length <= 1000"),
        (
            "/transactions",
            {"ops": [{"extend": {"job_id": "x", "lease_token": "t"}}, {"ack": {"job_id": "x", "lease_token": "t"}}]},
            "ops[1]: job_id must not be one that another operation names",
        ),
    ],
)
async def test_bad_input_is_named(world: World, path: str, body: Any, message: str) -> None:
    reply = await post(world, path, body)
    assert (reply.status, reply.error) == (400, message)


# --- choosing among queues --------------------------------------------------------------------------------------------


async def test_queues_by_weight(world: World) -> None:
    for queue in ("a", "b"):
        await world.call("client", "POST", "/jobs/batch", {"jobs": [{"payload": 1, "queue": queue}] * 40})
    jobs = (await post(world, "/jobs/lease", {"queues": {"a": 3, "b": 1}, "max": 20})).json["jobs"]
    assert [job["queue"] for job in jobs].count("a") == 15


async def test_a_lease_by_weight_waits(world: World) -> None:
    wire = await world.connect()
    body = b'{"queues": {"a": 3, "b": 1}, "wait_ms": 30000}'
    await wire.send(request_bytes("POST", "/jobs/lease", (world.bearer("worker"),), body))
    await world.until_at_work()
    job_id = await world.submit(queue="b")
    assert (await wire.reply()).json["job_id"] == job_id


async def test_who_waits_is_woken_when_nothing_is_in_the_way_any_more() -> None:
    """By a resumed queue, by a lease that ends under a limit, and by a rate limit's next token."""
    async with running(lease_check_ms=60_000) as world:

        async def put(settings: dict[str, Any]) -> None:
            reply = await world.call("admin", "PUT", "/queues/q", settings)
            assert reply.status == 200, reply.body

        async def waiting() -> asyncio.Task[Reply]:
            wire = await world.connect()
            body = b'{"queues": ["q"], "wait_ms": 30000}'
            await wire.send(request_bytes("POST", "/jobs/lease", (world.bearer("worker"),), body))
            await world.until_at_work()
            return asyncio.create_task(wire.reply())

        await put({"paused": True})
        for _ in range(3):
            await world.submit(queue="q")
        first = await waiting()
        await world.call("admin", "POST", "/queues/q/resume")
        one = (await first).json
        await put({"concurrency": 1})
        second = await waiting()
        await ack(world, one)
        assert (await second).status == 200
        await put({"rate_limit": {"n": 1, "per_ms": 50}})
        third = await waiting()
        assert (await third).status == 200


# --- transactions -----------------------------------------------------------------------------------------------------


def op_ack(leased: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"ack": {"job_id": leased["job_id"], "lease_token": leased["lease_token"], **fields}}


async def test_a_transaction_happens_as_a_whole(world: World) -> None:
    parent, other = await leased_job(world), await leased_job(world)
    extend = {"extend": {"job_id": other["job_id"], "lease_token": other["lease_token"], "lease_ms": 600_000}}
    children = [{"submit": {"payload": n, "queue": "next"}} for n in range(2)]
    reply = await post(world, "/transactions", {"ops": [children[0], op_ack(parent, result=7), extend, children[1]]})
    assert reply.status == 200, reply.body
    first, acked, extended, second = reply.json["results"]
    assert acked == {"job_id": parent["job_id"], "ok": True}
    assert extended["lease_until"] > other["lease_until"]
    shown = await world.show(parent["job_id"])
    assert (shown["state"], shown["result"]) == ("ACKED", 7)
    for child in (first, second):  # the worker has no jobs:submit; they belong to the parent's owner
        assert (await world.show(child["job_id"]))["queue"] == "next"
        assert (await world.call("stranger", "GET", f"/jobs/{child['job_id']}")).status == 404


async def test_a_transaction_that_may_not_happen_leaves_no_trace(world: World) -> None:
    parent = await leased_job(world)
    before = world.core.state_hash()
    ops = [op_ack(parent), {"submit": {"payload": 1}}, {"extend": {"job_id": "nope", "lease_token": "x"}}]
    assert (await post(world, "/transactions", {"ops": ops})).status == 404
    assert (await post(world, "/transactions", {"ops": [op_ack(parent | {"lease_token": "0" * 24})]})).status == 409
    assert world.core.state_hash() == before


async def test_a_transaction_again(world: World) -> None:
    parent = await leased_job(world)
    body = {"ops": [op_ack(parent), {"submit": {"payload": 1}}]}
    first = await post(world, "/transactions", body, key="t1")
    again = await post(world, "/transactions", body, key="t1")
    assert (first.status, again.status) == (200, 200)
    assert again.json == first.json
    without = await post(world, "/transactions", body)
    assert (without.status, without.json["code"]) == (409, "lease_lost")
    other = await post(world, "/transactions", {"ops": [op_ack(parent), {"submit": {"payload": 2}}]}, key="t1")
    assert (other.status, other.json["code"]) == (422, "idempotency_mismatch")


async def test_a_submit_alone_needs_its_scope(world: World) -> None:
    refused = await post(world, "/transactions", {"ops": [{"submit": {"payload": 1}}]})
    assert (refused.status, refused.error) == (403, "Insufficient permissions")
    assert (await post(world, "/transactions", {"ops": [{"submit": {"payload": 1}}]}, who="admin")).status == 200


async def test_children_of_two_owners(world: World) -> None:
    await world.submit(who="client")
    await world.submit(who="stranger")
    both = [await world.lease({}), await world.lease({})]
    ops = [*map(op_ack, both), {"submit": {"payload": 1}}]
    reply = await post(world, "/transactions", {"ops": ops})
    assert (reply.status, reply.error) == (400, "ops: beside a submit, the jobs that are acked must have one owner")
