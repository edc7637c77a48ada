"""An empty list is a list: of jobs, of acks, of tags. Where at least one is needed the error says so."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.world import World

KEYED = (("Idempotency-Key", "k"),)


@pytest.mark.parametrize("headers", [(), KEYED], ids=["plain", "keyed"])
@pytest.mark.parametrize(
    ("who", "path", "body", "answer"),
    [
        ("client", "/jobs/batch", {"jobs": []}, {"job_ids": []}),
        ("worker", "/jobs/ack", {"acks": []}, {"results": []}),
        ("worker", "/transactions", {"ops": []}, {"results": []}),
        ("worker", "/workers/heartbeat", {"worker_id": "w", "leases": []}, {"leases": []}),
        ("client", "/jobs/delete", {"filter": {"ids": []}}, {"matched": 0, "changed": 0, "complete": True}),
        ("client", "/jobs/cancel", {"filter": {"ids": []}}, {"matched": 0, "changed": 0, "complete": True}),
        ("client", "/jobs/redrive", {"filter": {"ids": []}}, {"matched": 0, "changed": 0, "complete": True}),
    ],
)
async def test_an_empty_list_is_answered(
    world: World, who: str, path: str, body: Any, answer: Any, headers: tuple[tuple[str, str], ...]
) -> None:
    job_id = await world.submit()
    for _ in range(2):
        reply = await world.call(who, "POST", path, body, headers)
        assert (reply.status, reply.json) == (200, answer)
    assert (await world.show(job_id))["state"] == "READY", "an empty list of ids is no job, not every job"


async def test_a_job_without_tags_may_say_so(world: World) -> None:
    replies = [
        await world.call("client", "POST", "/jobs", {"payload": 1, **tags}, KEYED)
        for tags in ({"tags": []}, {}, {"tags": []})
    ]
    assert [reply.status for reply in replies] == [201, 200, 200], "the same job, whichever way it says so"
    batch = await world.call("client", "POST", "/jobs/batch", {"jobs": [{"payload": 1, "tags": []}]})
    assert batch.status == 201
    assert "tags" not in (await world.lease({}))


@pytest.mark.parametrize(
    ("who", "method", "path", "body", "field"),
    [
        ("worker", "POST", "/jobs/lease", {"queues": []}, "queues"),
        ("worker", "POST", "/jobs/lease", {"queues": {}}, "queues"),
        ("admin", "POST", "/admin/keys", {"name": "n", "owner_id": "o", "type": "worker", "scopes": []}, "scopes"),
        ("admin", "POST", "/admin/keys", {"name": "n", "owner_id": "o", "type": "worker", "queues": []}, "queues"),
    ],
)
async def test_a_list_that_needs_a_member_says_so(
    world: World, who: str, method: str, path: str, body: Any, field: str
) -> None:
    reply = await world.call(who, method, path, body)
    assert (reply.status, reply.error) == (400, f"{field} must have at least 1 entry, or be left out")


async def test_a_null_body_is_an_object_without_members(world: World) -> None:
    """As the original reads it."""
    assert (await world.call("client", "POST", "/jobs", b"null")).error == "payload is required"
    assert (await world.call("client", "POST", "/jobs", b" null\r\n")).error == "payload is required"
    assert (await world.call("admin", "POST", "/admin/keys", b"null")).error == "name is required"
    await world.submit()
    lease = (await world.call("worker", "POST", "/jobs/lease")).json  # without a token, as the original's workers
    assert (await world.call("worker", "POST", f"/jobs/{lease['job_id']}/ack", b"null")).status == 200
    assert (await world.show(lease["job_id"]))["state"] == "ACKED"
    reply = await world.call("admin", "PUT", "/queues/mail", b"null")
    assert reply.status == 400, "no settings are reset by a null"
