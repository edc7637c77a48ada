"""Requests that the tests of several resources make."""

from __future__ import annotations

from typing import Any

from tests.http.wire import Reply
from tests.http.world import World


async def post(world: World, path: str, body: Any, who: str = "worker", key: str = "") -> Reply:
    return await world.call(who, "POST", path, body, (("Idempotency-Key", key),) if key else ())


async def call(world: World, who: str, path: str, body: Any, status: int) -> Any:
    reply = await world.call(who, "POST", path, body)
    assert reply.status == status, reply.body
    return reply.json


async def submit(world: World, body: Any, key: str = "", who: str = "client", path: str = "/jobs") -> Reply:
    return await world.call(who, "POST", path, body, (("Idempotency-Key", key),) if key else ())


async def leased_job(world: World, **fields: Any) -> dict[str, Any]:
    await world.submit(**fields)
    return await world.lease({"queues": [fields.get("queue", "default")]})


async def ack(world: World, leased: dict[str, Any], **body: Any) -> Reply:
    return await post(world, f"/jobs/{leased['job_id']}/ack", {"lease_token": leased["lease_token"], **body})


async def get(world: World, path: str, who: str = "client") -> Any:
    reply = await world.call(who, "GET", path)
    assert reply.status == 200, reply.body
    return reply.json
