"""A queue says why its ready jobs wait: a pause with its reason and end, a limit, no worker."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.resources.requests import get
from tests.http.world import World

LATER = "2030-01-01T00:00:00Z"


async def pause(world: World, body: Any = None, query: str = "?create=true") -> dict[str, Any]:
    reply = await world.call("admin", "POST", f"/queues/mail/pause{query}", body)
    assert reply.status == 200, reply.body
    shown: dict[str, Any] = reply.json
    return shown


async def why(world: World, name: str = "mail", who: str = "worker") -> tuple[str, str]:
    found = (await get(world, f"/queues/{name}", who))["why"]
    listed = [queue["why"] for queue in (await get(world, "/queues", who))["queues"] if queue["name"] == name]
    assert listed == [found]
    return found["code"], found["words"]


async def test_a_pause_says_why_and_until_when(world: World) -> None:
    job_id = await world.submit(queue="mail")
    settings = (await pause(world, {"reason": "Zoë moves the database", "until": "2030-01-01T01:00:00+01:00"}))[
        "settings"
    ]
    assert (settings["paused"], settings["pause_reason"]) == (True, "Zoë moves the database")
    assert settings["pause_until"] == LATER
    assert await why(world) == ("paused", f"paused: Zoë moves the database, until {LATER}")
    assert await why(world, who="client") == ("paused", f"paused: Zoë moves the database, until {LATER}")
    of_job = await get(world, f"/jobs/{job_id}/why")
    assert of_job["reason"] == "paused"
    assert (of_job["pause_reason"], of_job["pause_until"]) == ("Zoë moves the database", LATER)
    put = await world.call("admin", "PUT", "/queues/mail", settings)
    assert put.json["settings"] == settings, "what is shown may be put"
    await world.call("admin", "POST", "/queues/mail/resume")
    settings = (await get(world, "/queues/mail"))["settings"]
    assert (settings["paused"], settings["pause_reason"], settings["pause_until"]) == (False, None, None)
    assert "pause_reason" not in await get(world, f"/jobs/{job_id}/why")
    entries = (await world.call("admin", "GET", "/admin/audit")).json["entries"]
    assert entries[1]["details"]["settings"]["pause_reason"] == "Zoë moves the database"


async def test_a_pause_replaces_the_one_before(world: World) -> None:
    await pause(world, {"reason": "one", "until": LATER})
    settings = (await pause(world, {"reason": "two"}))["settings"]
    assert (settings["pause_reason"], settings["pause_until"]) == ("two", None)
    assert (await pause(world))["settings"]["pause_reason"] is None


async def test_a_put_that_does_not_pause_has_no_reason(world: World) -> None:
    put = await world.call("admin", "PUT", "/queues/mail", {"pause_reason": "x", "pause_until": LATER, "fair": True})
    assert put.json["settings"]["pause_reason"] is put.json["settings"]["pause_until"] is None


async def test_each_limit_is_said(world: World) -> None:
    assert (await world.call("worker", "GET", "/queues/mail")).status == 404
    first = await world.submit(queue="mail", group="g")
    assert (await why(world))[0] == "no_worker"
    assert "no worker has asked since the server started" in (await why(world))[1]
    await world.submit(queue="mail", group="g")
    leased = await world.lease({"queues": ["mail"]})
    assert leased["job_id"] == first
    assert await why(world) == ("moving", "workers take its jobs")
    await world.call("admin", "PUT", "/queues/mail", {"concurrency": 1})
    assert await why(world) == ("concurrency", "as many jobs run as may: 1")
    await world.call("admin", "PUT", "/queues/mail", {"group_concurrency": 1})
    assert await why(world) == ("group_concurrency", "every group with ready jobs runs as many as it may: 1")
    await world.call("admin", "PUT", "/queues/mail", {"rate_limit": {"n": 1, "per_ms": 3_600_000}})
    code, words = await why(world)
    assert code == "rate_limit" and words.startswith("the rate limit allows the next lease at ")
    await world.call("admin", "PUT", "/queues/mail", {})
    world.hands.ahead_us += 180_000_000
    assert await why(world) == ("no_worker", "no worker has asked for 3 min")
    await world.submit(queue="later", delay_ms=60_000)
    assert await why(world, "later") == ("empty", "no job is ready")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"reason": ""}, "reason must be 1 to 200 bytes"),
        ({"reason": "x" * 201}, "reason must be 1 to 200 bytes"),
        ({"reason": "a\nb"}, "reason must have printable characters only"),
        ({"until": "2020-01-01T00:00:00Z"}, "until must be in the future"),
        ({"until": "2099-01-01T00:00:00Z"}, "until must be at most 10 years ahead"),
        ({"until": "tomorrow"}, "until must be an RFC 3339 time"),
        ({"why": "x"}, "unknown field: why"),
    ],
)
async def test_bad_pauses(world: World, body: Any, message: str) -> None:
    reply = await world.call("admin", "POST", "/queues/mail/pause?create=true", body)
    assert reply.status == 400
    assert message in reply.error
    assert (await world.call("worker", "GET", "/queues/mail")).status == 404
