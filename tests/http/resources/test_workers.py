"""Workers: their leases, and when each was last seen."""

from __future__ import annotations

from typing import Any

import pytest

import fastq.engine.workers
import fastq.services.workers
from tests.http.world import World


async def workers(world: World, who: str = "client") -> dict[str, Any]:
    reply = await world.call(who, "GET", "/workers")
    assert reply.status == 200, reply.body
    shown: dict[str, Any] = reply.json
    return shown


async def test_workers_and_their_leases(world: World) -> None:
    assert await workers(world) == {"workers": [], "complete": True}
    jobs = [await world.submit(queue=queue) for queue in ("a", "b", "default")]
    first = await world.lease({"queues": ["a"], "worker_id": "w2"})
    await world.lease({"queues": ["b"], "worker_id": "w1"})
    await world.lease()  # says nothing
    shown = await workers(world)
    assert shown["complete"] is True
    assert [(worker["worker_id"], [lease["job_id"] for lease in worker["leases"]]) for worker in shown["workers"]] == [
        ("", [jobs[2]]),
        ("w1", [jobs[1]]),
        ("w2", [jobs[0]]),
    ]
    lease = shown["workers"][2]["leases"][0]
    assert lease["queue"] == "a"
    assert lease["lease_until"] == first["lease_until"]
    assert lease["cancel_requested"] is False
    assert shown["workers"][2]["last_seen_at"] == lease["leased_at"]
    assert (await workers(world, "stranger"))["workers"] == []


async def test_idle_workers_are_shown_for_an_hour_and_not_to_clients(world: World) -> None:
    await world.call("worker", "POST", "/jobs/lease", {"worker_id": "idle", "max": 1})
    assert [worker["worker_id"] for worker in (await workers(world, "admin"))["workers"]] == ["idle"]
    assert (await workers(world))["workers"] == []
    before = (await workers(world, "admin"))["workers"][0]["last_seen_at"]
    world.hands.ahead_us += 600_000_000
    await world.call("worker", "POST", "/jobs/lease", {"worker_id": "idle", "max": 1})
    assert (await workers(world, "admin"))["workers"][0]["last_seen_at"] > before
    world.hands.ahead_us += 3_601_000_000
    assert (await workers(world, "admin"))["workers"] == []


async def test_the_queues_that_a_worker_asked_last_are_shown_to_who_sees_every_job(world: World) -> None:
    await world.submit(queue="mine")
    await world.call("worker", "POST", "/jobs/lease", {"worker_id": "w", "max": 1, "queues": ["mine", "other"]})
    await world.call("worker", "POST", "/workers/heartbeat", {"worker_id": "w", "leases": []})
    await world.call("worker", "POST", "/jobs/lease", {"worker_id": "v", "max": 1, "queues": {"a": 2, "b": 1}})
    await world.call("worker", "POST", "/jobs/lease", {"worker_id": "many", "queues": [f"q{n}" for n in range(20)]})
    shown = {worker["worker_id"]: worker.get("queues") for worker in (await workers(world, "admin"))["workers"]}
    assert shown == {"w": ["mine", "other"], "v": ["a", "b"], "many": [f"q{n}" for n in range(8)]}
    assert ["queues" in worker for worker in (await workers(world))["workers"]] == [False], "a client sees its own job"


async def test_it_is_bounded_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastq.services.workers, "LEASES_SHOWN", 2)
    monkeypatch.setattr(fastq.services.workers, "IDLE_SHOWN", 1)
    for _ in range(3):
        await world.submit()
    await world.call("worker", "POST", "/jobs/lease", {"worker_id": "w", "max": 2})
    assert (await workers(world, "admin"))["complete"] is True
    await world.lease({"worker_id": "w"})
    shown = await workers(world, "admin")
    assert shown["complete"] is False
    assert len(shown["workers"][0]["leases"]) == 2
    for name in ("x", "y"):
        await world.call("worker", "POST", "/jobs/lease", {"worker_id": name, "max": 1})
    assert [worker["worker_id"] for worker in (await workers(world, "admin"))["workers"]] == ["w", "x"]


async def test_what_a_worker_says_about_itself_is_shown_to_who_sees_every_job(world: World) -> None:
    await world.submit()
    await world.lease({"worker_id": "w"})
    for said in ({"host": "web-1", "version": "4.2"}, {}, {"host": "Zoë"}):
        reply = await world.call("worker", "POST", "/workers/heartbeat", {"worker_id": "w", "leases": []} | said)
        assert reply.status == 200
        (shown,) = (await workers(world, "admin"))["workers"]
        expected = {"host": "web-1", "version": "4.2"} if said != {"host": "Zoë"} else said
        assert {name: shown[name] for name in ("host", "version") if name in shown} == expected
        (of_client,) = (await workers(world))["workers"]
        assert {"host", "version"}.isdisjoint(of_client)
    for said, message in (({"host": "x" * 256}, "host must be 1 to 255 bytes"), ({"version": ""}, "version must be 1"),
                          ({"version": "a\nb"}, "version must have printable characters only")):  # fmt: skip
        reply = await world.call("worker", "POST", "/workers/heartbeat", {"worker_id": "w", "leases": []} | said)
        assert (reply.status, reply.error.startswith(message)) == (400, True)


async def test_what_workers_say_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastq.engine.workers, "WORKERS_KEPT", 3)
    for n in range(10):
        body = {"worker_id": f"w{n}", "leases": [], "host": f"h{n}"}
        await world.call("worker", "POST", "/workers/heartbeat", body)
    assert len(world.engine.last_seen._about) == 3
