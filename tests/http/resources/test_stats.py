"""GET /stats: the figures of the queue, and whose they are."""

from __future__ import annotations

from typing import Any

import msgspec

from fastq.http.resources.stats import StatsShown
from fastq.services.keys import Grants
from tests.http.world import World

OF_THE_SERVER = {"rates", "latency_ms", "wal", "memory"}


async def stats(world: World, who: str = "admin") -> dict[str, Any]:
    world.hands.ahead_us += 2_000_000  # past what a sweep found before
    reply = await world.call(who, "GET", "/stats")
    assert reply.status == 200, reply.body
    assert reply.headers["cache-control"] == "no-store"
    msgspec.convert(reply.json, StatsShown)
    shown: dict[str, Any] = reply.json
    return shown


def totals(shown: dict[str, Any]) -> tuple[int, ...]:
    return tuple(shown[name] for name in ("runnable", "running", "scheduled", "dead"))


async def test_an_empty_server(world: World) -> None:
    shown = await stats(world)
    assert totals(shown) == (0, 0, 0, 0)
    assert shown["queues"] == []
    assert shown["queue_count"] == 0
    assert shown["oldest_ready_s"] == 0
    assert shown["latency_ms"]["lease_to_ack"] == {"p50": None, "p95": None, "p99": None}
    assert shown["role"] == "single"
    assert shown["memory"]["rss_bytes"] > 1 << 20


async def test_totals_and_queues_have_the_same_counts(world: World) -> None:
    for queue in ("mail", "mail", "mail", "web"):
        await world.submit(queue=queue, max_retries=0)
    await world.submit(queue="mail", delay_ms=3_600_000)
    await world.lease({"queues": ["web"]})
    failed = await world.lease({"queues": ["mail"]})
    done = await world.lease({"queues": ["mail"]})
    ended = {"lease_token": failed["lease_token"], "result_error": "no", "outcome": "discard"}
    await world.call("worker", "POST", f"/jobs/{failed['job_id']}/ack", ended)
    await world.call("worker", "POST", f"/jobs/{done['job_id']}/ack", {"lease_token": done["lease_token"]})
    shown = await stats(world)
    assert totals(shown) == (1, 1, 1, 1)
    assert shown["states"]["ACKED"] == 1
    queues = {queue["name"]: totals(queue) for queue in shown["queues"]}
    assert queues == {"mail": (1, 0, 1, 1), "web": (0, 1, 0, 0)}
    assert shown["queue_count"] == 2
    assert shown["queues"][0]["name"] == "mail"  # it has a ready job
    assert shown["oldest_ready_s"] >= 2
    assert shown["queues"][0]["oldest_ready_s"] == shown["oldest_ready_s"]


async def test_a_client_key_gets_its_owners_totals_and_nothing_of_others(world: World) -> None:
    for queue in ("mine", "shared"):
        await world.submit(queue=queue)
    for queue in ("shared", "theirs", "theirs"):
        await world.submit(who="stranger", queue=queue)
    shown = await stats(world, "client")
    assert totals(shown) == (2, 0, 0, 0)
    assert [(queue["name"], queue["runnable"]) for queue in shown["queues"]] == [("mine", 1), ("shared", 1)]
    assert shown["queue_count"] == 2
    assert not OF_THE_SERVER & shown.keys()
    assert "oldest_ready_s" not in shown
    assert not {"oldest_ready_s", "in_per_s", "out_per_s", "failed_per_s"} & shown["queues"][0].keys()
    assert totals(await stats(world, "admin")) == (5, 0, 0, 0)


async def test_a_key_of_some_queues_gets_these(world: World) -> None:
    for queue in ("a", "b"):
        await world.submit(queue=queue)
    await world.make_key("bound", "worker", grants=Grants(queues=frozenset({"a"})))
    shown = await stats(world, "bound")
    assert totals(shown) == (1, 0, 0, 0)
    assert [queue["name"] for queue in shown["queues"]] == ["a"]
    assert shown["oldest_ready_s"] > 0
    assert not OF_THE_SERVER & shown.keys()


async def test_queues_show_how_fast_their_jobs_move(world: World) -> None:
    for _ in range(20):
        await world.submit(queue="mail")
    done = await world.lease({"queues": ["mail"]})
    await world.call("worker", "POST", f"/jobs/{done['job_id']}/ack", {"lease_token": done["lease_token"]})
    world.hands.ahead_us += 3_000_000
    reply = await world.call("admin", "GET", "/queues/mail")
    assert reply.json["in_per_s"] == 2.0
    assert reply.json["out_per_s"] == 0.1
    assert reply.json["failed_per_s"] == 0.0
    assert 3 <= reply.json["oldest_ready_s"] < 30
    of_owner = (await world.call("client", "GET", "/queues/mail")).json
    assert not {"oldest_ready_s", "in_per_s", "out_per_s", "failed_per_s"} & of_owner.keys()
    world.hands.ahead_us += 11_000_000
    assert (await world.call("admin", "GET", "/queues")).json["queues"][0]["in_per_s"] == 0.0
