"""GET /failures: failed attempts, grouped."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fastq.http.resources.failures import FailuresShown
from fastq.services.keys import Grants
from tests.http.world import World


async def fail(world: World, error: str, queue: str = "mail", who: str = "client", code: str = "") -> str:
    job_id = await world.submit(who=who, queue=queue, max_retries=0)
    leased = await world.lease({"queues": [queue]})
    ack = {"lease_token": leased["lease_token"], "result_error": error} | ({"error_code": code} if code else {})
    assert (await world.call("worker", "POST", f"/jobs/{job_id}/ack", ack)).status == 200
    return job_id


async def failures(world: World, who: str = "admin", query: str = "") -> list[dict[str, Any]]:
    reply = await world.call(who, "GET", f"/failures{query}")
    assert reply.status == 200, reply.body
    msgspec.convert(reply.json, FailuresShown)
    groups: list[dict[str, Any]] = reply.json["groups"]
    return groups


async def test_failures_are_grouped_by_queue_code_and_first_line(world: World) -> None:
    assert await failures(world) == []
    for error in ("no host\nat line 1", "no host\nat line 2"):
        last = await fail(world, error)
    await fail(world, "no host", queue="web")
    await fail(world, "no host", code="E1")
    groups = await failures(world)
    assert [(group["queue"], group["error_code"], group["error"], group["count"]) for group in groups] == [
        ("mail", "E1", "no host", 1), ("web", "", "no host", 1), ("mail", "", "no host", 2),
    ]  # fmt: skip
    assert groups[2]["job_id"] == last
    assert groups[2]["first_at"] < groups[2]["last_at"]
    assert [group["queue"] for group in await failures(world, query="?queue=web")] == ["web"]
    assert len(await failures(world, query="?limit=1")) == 1
    since = groups[1]["last_at"]
    assert len(await failures(world, query=f"?since={since}")) == 2


async def test_a_caller_gets_the_failures_of_the_jobs_that_it_sees(world: World) -> None:
    await fail(world, "mine", queue="a")
    await fail(world, "theirs", queue="b", who="stranger")
    await world.make_key("bound", "worker", grants=Grants(queues=frozenset({"b"})))
    seen = {who: [group["error"] for group in await failures(world, who)] for who in ("client", "stranger", "bound")}
    assert seen == {"client": ["mine"], "stranger": ["theirs"], "bound": ["theirs"]}
    assert await failures(world, "client", "?queue=b") == []


@pytest.mark.parametrize(
    "query", ["?limit=0", "?limit=1001", "?limit=x", "?since=yesterday", "?queue=a%20b", "?queue=a&queue=b", "?x=1"]
)
async def test_what_is_wrong_is_refused(world: World, query: str) -> None:
    reply = await world.call("admin", "GET", f"/failures{query}")
    assert (reply.status, reply.json["code"]) == (400, "invalid_request"), query
