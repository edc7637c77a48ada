"""Keys with scopes, queues, rate limits and expiry; rotation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fastq.engine.commands import KEY_QUEUES_MAX, KEY_RATE_MAX, OVERLAP_MS_MAX
from fastq.http.routes import SCOPES
from tests.http.wire import Reply
from tests.http.world import World

WORKER: dict[str, Any] = {"name": "n", "owner_id": "o", "type": "worker"}
CLIENT = WORKER | {"type": "client"}
ADMIN = WORKER | {"type": "admin"}
FAR = "2999-01-01T00:00:00Z"


async def made(world: World, body: dict[str, Any]) -> dict[str, Any]:
    reply = await world.call("admin", "POST", "/admin/keys", body)
    assert reply.status == 201, reply.body
    key: dict[str, Any] = reply.json
    world.secrets[key["name"]], world.key_ids[key["name"]] = key["key"], key["key_id"]
    return key


async def test_the_options_of_a_key_are_shown(world: World) -> None:
    limits = {"scopes": ["jobs:lease"], "queues": ["b", "a", "b"], "rate_limit": 5, "expires_at": FAR}
    key = await made(world, WORKER | limits)
    expected = limits | {"queues": ["a", "b"]}
    assert {name: key[name] for name in limits} == expected
    listed = {one["key_id"]: one for one in (await world.call("admin", "GET", "/admin/keys")).json}
    assert {name: listed[key["key_id"]][name] for name in limits} == expected
    assert not limits.keys() & listed[world.key_ids["client"]].keys() - {"scopes"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (CLIENT | {"scopes": []}, "scopes must have at least 1 entry, or be left out"),
        (CLIENT | {"scopes": ["jobs:sumbit"]}, f"scopes must be some of {', '.join(SCOPES)}, not jobs:sumbit"),
        (ADMIN | {"scopes": ["jobs:read"]}, "scopes must be left out when type is admin: an admin key has all scopes"),
        (CLIENT | {"queues": ["a"]}, "queues must be left out unless type is worker"),
        (WORKER | {"queues": []}, "queues must have at least 1 entry, or be left out"),
        (WORKER | {"queues": ["a b"]}, "queues must be 1 to 64 characters of A-Z a-z 0-9 . _ -"),
        (WORKER | {"queues": ["a"] * (KEY_QUEUES_MAX + 1)}, f"queues must be of length <= {KEY_QUEUES_MAX}"),
        (CLIENT | {"rate_limit": 0}, "rate_limit must be >= 1"),
        (CLIENT | {"rate_limit": KEY_RATE_MAX + 1}, f"rate_limit must be <= {KEY_RATE_MAX}"),
        (CLIENT | {"rate_limit": 1.5}, "invalid JSON: rate_limit must be an integer"),
        (CLIENT | {"expires_at": "tomorrow"}, "expires_at must be an RFC 3339 time"),
        (CLIENT | {"expires_at": "2020-01-01T00:00:00Z"}, "expires_at must be in the future"),
        *[
            (CLIENT | {"owner_id": owner}, "owner_id must have no control characters and no space at an end")
            for owner in (" o", "o ", "o\n", "a\x00b", "a\r\nb", "\t", "a\x7f")
        ],
    ],
)
async def test_a_wrong_limit_is_refused(world: World, body: dict[str, Any], message: str) -> None:
    reply = await world.call("admin", "POST", "/admin/keys", body)
    assert (reply.status, reply.error) == (400, message)


@pytest.mark.parametrize("owner", ["o", "prod-team", "ann@example.org", "Jürgen & Söhne", "a b", "團隊"])
async def test_valid_owner_ids(world: World, owner: str) -> None:
    assert (await made(world, CLIENT | {"owner_id": owner}))["owner_id"] == owner


async def test_a_key_has_its_own_scopes_only(world: World) -> None:
    await made(world, WORKER | {"scopes": ["jobs:read", "jobs:lease"]})
    assert (await world.call("n", "POST", "/jobs", {"payload": 1})).status == 403
    assert (await world.call("n", "POST", "/jobs/lease")).status == 404


# --- queues -----------------------------------------------------------------------------------------------------------


def refused_queue(reply: Reply, queue: str) -> bool:
    if reply.status != 403:
        return False
    assert reply.json == {"error": f"queues: this key may not lease from '{queue}'", "code": "queue_forbidden"}
    return True


async def test_a_worker_bound_to_queues(world: World) -> None:
    await made(world, WORKER | {"queues": ["mail", "sms"]})
    for queue in ("mail", "other", "default"):
        await world.submit(queue=queue)
    assert refused_queue(await world.call("n", "POST", "/jobs/lease"), "default")
    assert refused_queue(await world.call("n", "POST", "/jobs/lease", {"queues": ["mail", "other"]}), "other")
    leased = await world.call("n", "POST", "/jobs/lease", {"queues": ["sms", "mail"]})
    assert (leased.status, leased.json["queue"]) == (200, "mail")
    assert (await world.call("worker", "POST", "/jobs/lease", {"queues": ["other"]})).status == 200


# --- an end, and how often --------------------------------------------------------------------------------------------


async def test_a_key_expires(world: World) -> None:
    now = datetime.fromtimestamp(world.engine.now_us() / 1e6, UTC)
    await made(world, CLIENT | {"expires_at": (now + timedelta(hours=1)).isoformat()})
    assert (await world.call("n", "GET", "/keys")).status == 200
    world.hands.ahead_us += 3_600_000_000
    reply = await world.call("n", "GET", "/keys")
    assert (reply.status, reply.json) == (401, {"error": "API key has expired", "code": "unauthenticated"})
    assert (await world.call("client", "GET", "/keys")).status == 200


async def test_a_rate_limit(world: World) -> None:
    await made(world, CLIENT | {"rate_limit": 2})
    statuses = [(await world.call("n", "GET", "/keys")).status for _ in range(2)]
    reply = await world.call("n", "POST", "/jobs", {"payload": 1})
    assert statuses == [200, 200]
    assert reply.json == {"error": "this key may make 2 requests a second: send fewer", "code": "rate_limited"}
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")
    world.hands.ahead_us += 1_000_000
    assert (await world.call("n", "POST", "/jobs", {"payload": 1})).status == 201


async def test_failed_logins_are_throttled_and_good_keys_are_not(world: World) -> None:
    wrong = (("Authorization", "Bearer client_wrong"),)
    replies = [await world.call(None, "GET", "/keys", headers=wrong) for _ in range(21)]
    assert [reply.status for reply in replies] == [401] * 20 + [429]
    assert replies[-1].json["code"] == "too_many_failures"
    assert int(replies[-1].headers["retry-after"]) >= 1
    assert (await world.call("client", "GET", "/keys")).status == 200


# --- rotation ---------------------------------------------------------------------------------------------------------


async def test_rotation(world: World) -> None:
    first = await made(world, WORKER | {"queues": ["mail"], "rate_limit": 1000})
    reply = await world.call("admin", "POST", f"/admin/keys/{first['key_id']}/rotate", {"overlap_ms": 60_000})
    assert reply.status == 200
    assert reply.headers["cache-control"] == "no-store"
    second = reply.json
    assert {name: value for name, value in second.items() if name != "key"} == {
        name: value for name, value in first.items() if name != "key"
    }
    world.secrets["second"] = second["key"]
    assert [(await world.call(who, "GET", "/keys")).status for who in ("n", "second")] == [200, 200]
    world.hands.ahead_us += 61_000_000
    assert [(await world.call(who, "GET", "/keys")).status for who in ("n", "second")] == [401, 200]


async def test_rotation_overlaps_for_an_hour_unless_told_otherwise(world: World) -> None:
    key = await made(world, CLIENT)
    assert (await world.call("admin", "POST", f"/admin/keys/{key['key_id']}/rotate")).status == 200
    world.hands.ahead_us += 3_590_000_000
    assert (await world.call("n", "GET", "/keys")).status == 200
    world.hands.ahead_us += 20_000_000
    assert (await world.call("n", "GET", "/keys")).status == 401


async def test_rotation_at_once(world: World) -> None:
    key = await made(world, CLIENT)
    path = f"/admin/keys/{key['key_id']}/rotate"
    assert (await world.call("admin", "POST", path, {"overlap_ms": 0})).status == 200
    assert (await world.call("n", "GET", "/keys")).status == 401


async def test_rotation_refused(world: World) -> None:
    path = f"/admin/keys/{world.key_ids['client']}/rotate"
    assert (await world.call("client", "POST", path)).status == 403
    for overlap in (-1, OVERLAP_MS_MAX + 1):
        reply = await world.call("admin", "POST", path, {"overlap_ms": overlap})
        assert (reply.status, reply.error.split(" ")[0]) == (400, "overlap_ms")
    reply = await world.call("admin", "POST", "/admin/keys/client_unknown/rotate")
    assert (reply.status, reply.json["code"]) == (404, "key_not_found")
    await world.call("client", "DELETE", f"/keys/{world.key_ids['client']}")
    reply = await world.call("admin", "POST", path)
    assert (reply.status, reply.json["code"]) == (409, "key_revoked")
