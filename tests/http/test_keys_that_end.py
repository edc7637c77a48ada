"""The key of a request is valid when the request takes effect: after its body, and after each other wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson
import pytest

from fastq._core import ALL
from fastq.engine.commands import Principal
from fastq.errors import CleanerBehind
from fastq.http.routes import OPEN
from fastq.services.keys import Grants
from fastq.services.keys.log_store import LogKeyStore
from tests.http.wire import Wire, request_bytes
from tests.http.world import World

ADMIN = Principal("admin_1", "admin", "admin", frozenset())
JOB = "0" * 8 + "-0000-0000-0000-" + "0" * 12
LEASED = {"job_id": JOB, "lease_token": "1"}

BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/jobs"): {"payload": 1},
    ("POST", "/jobs/batch"): {"jobs": [{"payload": 1}]},
    ("POST", "/jobs/lease"): {"max": 1},
    ("POST", "/jobs/{job_id}/ack"): {"lease_token": "1"},
    ("POST", "/jobs/ack"): {"acks": [LEASED]},
    ("POST", "/jobs/{job_id}/extend"): {"lease_token": "1"},
    ("POST", "/jobs/{job_id}/progress"): {"lease_token": "1", "percent": 1},
    ("POST", "/jobs/{job_id}/cancel"): {"force": True},
    ("POST", "/workers/heartbeat"): {"worker_id": "w", "leases": []},
    ("POST", "/transactions"): {"ops": [{"submit": {"payload": 1}}]},
    ("PATCH", "/jobs/{job_id}"): {"priority": 1},
    ("POST", "/jobs/cancel"): {"filter": {"state": "READY"}},
    ("POST", "/jobs/redrive"): {"filter": {"state": "DEAD"}},
    ("POST", "/jobs/delete"): {"filter": {"state": "READY"}},
    ("POST", "/jobs/{job_id}/resubmit"): {"priority": 1},
    ("PUT", "/queues/{queue}"): {"max_depth": 9},
    ("POST", "/queues/{queue}/pause"): {"reason": "r"},
    ("POST", "/queues/{queue}/purge"): {"work_ms": 100},
    ("PUT", "/schedules/{schedule}"): {"cron": "0 0 1 1 *", "job": {"payload": 1}},
    ("POST", "/admin/keys"): {"name": "n", "owner_id": "o", "type": "client"},
    ("POST", "/admin/keys/{key_id}/rotate"): {"overlap_ms": 0},
}

Change = Callable[[World], Coroutine[Any, Any, None]]


async def revoked(world: World) -> None:
    assert (await world.call("admin", "DELETE", f"/keys/{world.key_ids['ending']}")).status == 200


async def rotated(world: World) -> None:
    path = f"/admin/keys/{world.key_ids['ending']}/rotate"
    assert (await world.call("admin", "POST", path, {"overlap_ms": 0})).status == 200


async def expired(world: World) -> None:
    world.hands.ahead_us += 3_600_000_000


async def reduced(world: World) -> None:
    """As another program does that writes to the same store."""
    assert isinstance(world.keys, LogKeyStore)
    key_id = world.key_ids["ending"]
    stored = world.keys._keys[key_id]
    world.keys._change(key_id, msgspec.structs.replace(stored, scopes=("jobs:read",), type="client"), ADMIN)


CHANGES: dict[Change, int] = {revoked: 401, rotated: 401, expired: 401, reduced: 403}
"""What becomes of the key, and the status of a request that was under way."""


@dataclass
class Charged:
    """The requests that were authenticated at their head."""

    count: int = 0


@pytest.fixture
def charged(world: World, monkeypatch: pytest.MonkeyPatch) -> Charged:
    counted, charge = Charged(), world.app.auth.charge

    def count(known: Any) -> None:
        charge(known)
        counted.count += 1

    monkeypatch.setattr(world.app.auth, "charge", count)
    return counted


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not reached():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)


async def ending_key(world: World, kind: str = "admin") -> None:
    grants = Grants(expires_us=world.engine.now_us() + 1_800_000_000)
    await world.make_key("ending", kind, "client-owner", grants)


async def begun(world: World, charged: Charged, method: str, path: str, body: bytes) -> Wire:
    """A request without its last byte, authenticated."""
    wire, before = await world.connect(), charged.count
    await wire.send(request_bytes(method, path, (world.bearer("ending"),), body)[:-1])
    await until(lambda: charged.count > before)
    return wire


def shown(world: World, job_id: str) -> list[Any]:
    """What one of the requests could have changed."""
    node = world.node
    kept: Any = node.queues._settings, node.schedules._kept, node.keys._keys  # type: ignore[attr-defined]
    job = world.core.job(world.engine.now_us(), ALL, job_id)
    return [world.core.counts(), world.engine.next_number, job.state, job.priority, *(dict(one) for one in kept)]


def test_every_route_with_a_body_is_here(world: World) -> None:
    routes = {(route.method, route.path) for route in world.app.route_table if route.body and route.scope != OPEN}
    assert routes == BODIES.keys()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("method", "path"), BODIES)
async def test_a_body_that_arrives_after_its_key_ended_changes_nothing(
    world: World, charged: Charged, method: str, path: str, change: Change
) -> None:
    await ending_key(world)
    job_id = await world.submit()
    known = path.replace("{job_id}", job_id).replace("{key_id}", world.key_ids["client"])
    known = known.replace("{queue}", "default").replace("{schedule}", "new-one")
    body = orjson.dumps(BODIES[method, path])
    wire = await begun(world, charged, method, known, body)
    await change(world)
    before = shown(world, job_id)
    await wire.send(body[-1:])
    assert (await wire.reply()).status == CHANGES[change]
    assert shown(world, job_id) == before


@pytest.mark.parametrize("change", CHANGES)
async def test_a_kept_connection_is_no_longer_served(world: World, charged: Charged, change: Change) -> None:
    """Its head is known, so the short way takes it."""
    await ending_key(world)
    wire = await world.connect()
    request = request_bytes("POST", "/jobs", (world.bearer("ending"),), b'{"payload":1}')
    for _ in range(3):
        await wire.send(request)
        assert (await wire.reply()).status == 201
    before = charged.count
    await wire.send(request[:-2])
    await until(lambda: charged.count > before)
    await change(world)
    await wire.send(request[-2:] + request)
    assert [(await wire.reply()).status for _ in range(2)] == [CHANGES[change]] * 2


async def test_another_keys_change_costs_no_request(world: World, charged: Charged) -> None:
    """Nor does it count twice for the rate limit."""
    await world.make_key("ending", "client", "client-owner", Grants(rate_limit=1))
    await world.make_key("other", "client")
    wire = await begun(world, charged, "POST", "/jobs", b'{"payload":1}')
    assert (await world.call("admin", "DELETE", f"/keys/{world.key_ids['other']}")).status == 200
    await wire.send(b"}")
    assert (await wire.reply()).status == 201


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/jobs", b'{"payload":[1]}'),
        ("/jobs/batch", b'{"jobs":[{"payload":[1]}]}'),
        ("/transactions", b'{"ops":[{"submit":{"payload":1}}]}'),
    ],
)
@pytest.mark.parametrize("change", CHANGES)
async def test_what_waits_for_room_is_not_stored_when_its_key_ends(
    world: World, monkeypatch: pytest.MonkeyPatch, change: Change, path: str, body: bytes
) -> None:
    await ending_key(world)
    asked, may_go_on = asyncio.Event(), asyncio.Event()

    def behind(*_: Any, **_more: Any) -> None:
        raise CleanerBehind

    async def caught_up() -> None:
        asked.set()
        await may_go_on.wait()

    with monkeypatch.context() as patched:
        for name in ("submit", "submit_many", "transact"):
            patched.setattr(world.engine, name, behind)
        patched.setattr(world.engine, "caught_up", caught_up)
        wire = await world.connect()
        headers = (world.bearer("ending"), ("X-Not-Plain", "1"))  # for Falcon
        await wire.send(request_bytes("POST", path, headers, body))
        await asked.wait()
    await change(world)
    number = world.engine.next_number
    may_go_on.set()
    assert (await wire.reply()).status == CHANGES[change]
    assert world.engine.next_number == number


@asynccontextmanager
async def busy_turns(world: World) -> AsyncIterator[None]:
    """Others have the turn."""
    turns = [world.engine.turns.of(f"other-{n}") for n in range(16)]
    tasks = [asyncio.create_task(turn.__aenter__()) for turn in turns]
    await asyncio.wait(tasks[:1])
    yield
    for turn, task in zip(turns, tasks, strict=True):
        await task
        await turn.__aexit__(None, None, None)


@pytest.mark.parametrize("change", [revoked, expired])
@pytest.mark.parametrize("path", ["/jobs", "/queues", "/schedules", "/workers", "/admin/keys", "/admin/audit", "/keys"])
async def test_a_list_that_waits_for_its_turn_is_not_shown_when_its_key_ends(
    world: World, charged: Charged, path: str, change: Change
) -> None:
    await ending_key(world)
    async with busy_turns(world):
        wire, before = await world.connect(), charged.count
        await wire.send(request_bytes("GET", path, (world.bearer("ending"),)))
        await until(lambda: charged.count > before and world.engine.turns.waiting > 0)
        await change(world)
    assert (await wire.reply()).status == 401


@pytest.mark.parametrize("change", CHANGES)
async def test_a_bulk_change_ends_with_its_key(world: World, change: Change) -> None:
    await ending_key(world)
    jobs = [{"payload": 1}] * 3000
    assert (await world.call("client", "POST", "/jobs/batch", {"jobs": jobs})).status == 201
    wire = await world.connect()
    await wire.send(request_bytes("POST", "/jobs/delete", (world.bearer("ending"),), b'{"filter":{"queue":"default"}}'))
    await until(lambda: world.core.counts()["READY"] < 3000)
    await change(world)
    reply = await wire.reply()
    assert (reply.status, reply.json["complete"]) == (200, False)
    assert 0 < world.core.counts()["READY"] < 3000
