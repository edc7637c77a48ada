"""Transactions, over a real socket."""

from __future__ import annotations

from typing import Any

import pytest

from fastq.log.memory import MemoryLog
from fastq.services.keys import Grants
from tests.http.resources.requests import leased_job, post
from tests.http.world import World, running


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/transactions", {"ops": [{}]}, "ops[0]: exactly one of ack, submit and extend is required"),
        ("/transactions", {"ops": [{"ack": {"job_id": "x"}}]}, "ops[0]: ack.lease_token is required"),
        ("/transactions", {"ops": [{"submit": {"payload": ""}}]}, "ops[0]: payload is required"),
        ("/transactions", {"ops": [{"submit": {"payload": 1}}] * 1001}, "ops must be of length <= 1000"),
        (
            "/transactions",
            {"ops": [{"extend": {"job_id": "x", "lease_token": "t"}}, {"ack": {"job_id": "x", "lease_token": "t"}}]},
            "ops[1]: job_id must be different from that of every other ack and extend",
        ),
    ],
)
async def test_bad_input_is_named(world: World, path: str, body: Any, message: str) -> None:
    reply = await post(world, path, body, who="worker")
    assert (reply.status, reply.error) == (400, message)


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


async def test_a_refused_transaction_changes_nothing(world: World) -> None:
    parent = await leased_job(world)
    before = world.core.state_hash()
    ops = [op_ack(parent), {"submit": {"payload": 1}}, {"extend": {"job_id": "nope", "lease_token": "x"}}]
    assert (await post(world, "/transactions", {"ops": ops})).status == 404
    assert (await post(world, "/transactions", {"ops": [op_ack(parent | {"lease_token": "0" * 24})]})).status == 409
    assert world.core.state_hash() == before


async def test_a_repeated_transaction(world: World) -> None:
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


async def test_a_transaction_with_jobs_of_two_owners_submits_nothing(world: World) -> None:
    await world.submit(who="client")
    await world.submit(who="stranger")
    both = [await world.lease({}), await world.lease({})]
    ops = [*map(op_ack, both), {"submit": {"payload": 1}}]
    reply = await post(world, "/transactions", {"ops": ops})
    assert (reply.status, reply.error) == (400, "ops: the acked jobs must have one owner when there is also a submit")


@pytest.mark.parametrize("queues", [None, frozenset({"default"})])
@pytest.mark.parametrize("gone", ["deleted", "restarted", "deleted and restarted"])
async def test_a_transaction_is_repeated_when_what_it_named_is_gone(gone: str, queues: frozenset[str] | None) -> None:
    """The worker's owner is not the job's; the answer depends on the key alone."""
    log = MemoryLog()
    async with running(log=log) as world:
        await world.make_key("worker", "worker", "worker-owner", Grants(queues=queues))
        parent, other = await leased_job(world), await leased_job(world)
        extend = {"extend": {"job_id": other["job_id"], "lease_token": other["lease_token"]}}
        body = {"ops": [op_ack(parent), extend, {"submit": {"payload": 1, "queue": "next"}}]}
        first = await post(world, "/transactions", body, key="t1")
        assert first.status == 200, first.body
        if "deleted" in gone:
            for job_id in (parent["job_id"], first.json["results"][2]["job_id"]):
                assert (await world.call("admin", "DELETE", f"/jobs/{job_id}")).status == 200
            await post(world, f"/jobs/{other['job_id']}/ack", {"lease_token": other["lease_token"]})
            await world.call("admin", "DELETE", f"/jobs/{other['job_id']}")
        again = await post(world, "/transactions", body, key="t1")
        secret, log = world.secrets["worker"], world.log.crash()
    assert (again.status, again.json) == (200, first.json)
    if "restarted" in gone:
        async with running(roles={}, log=log) as world:
            world.secrets["worker"] = secret
            again = await post(world, "/transactions", body, key="t1")
            assert (again.status, again.json) == (200, first.json)


async def test_an_idempotency_key_belongs_to_the_owner_of_the_caller(world: World) -> None:
    """The jobs' owner used the same keys. A worker's first transaction and its new jobs are no repetitions."""
    for key in ("t1", "c1"):
        reply = await world.call("client", "POST", "/jobs", {"payload": 0}, (("Idempotency-Key", key),))
        assert reply.status == 201
    parent, later = await world.lease({}), await world.lease({})
    child = {"submit": {"payload": 1, "idempotency_key": "c1"}}
    keyed = await post(world, "/transactions", {"ops": [op_ack(parent), {"submit": {"payload": 1}}]}, key="t1")
    assert keyed.status == 200, keyed.body
    made = await post(world, "/transactions", {"ops": [op_ack(later), child]})
    assert made.status == 200, made.body
    child_id = made.json["results"][1]["job_id"]
    assert (await world.show(child_id))["state"] == "READY"  # it belongs to the client, its key to the worker
    assert (await world.call("admin", "DELETE", f"/jobs/{child_id}")).status == 200
    again = await leased_job(world)
    repeated = await post(world, "/transactions", {"ops": [op_ack(again), child]})
    assert repeated.json["results"][1]["job_id"] == child_id
    reply = await world.call("client", "POST", "/jobs", {"payload": 1}, (("Idempotency-Key", "c1"),))
    assert (reply.status, reply.json["code"]) == (422, "idempotency_mismatch")
