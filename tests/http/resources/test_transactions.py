"""Transactions, over a real socket."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.resources.requests import leased_job, post
from tests.http.world import World


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/transactions", {"ops": []}, "ops is required"),
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
    assert (reply.status, reply.error) == (400, "ops: the acked jobs must have one owner when there is also a submit")
