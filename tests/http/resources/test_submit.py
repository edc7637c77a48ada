"""Submit, over a real socket: batches, options, idempotency keys, unique keys."""

from __future__ import annotations

from typing import Any

import pytest

from fastq._core import ALL
from tests.http.resources.requests import call, post, submit
from tests.http.world import World, running

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_batch_is_submitted_leased_and_acked(world: World) -> None:
    jobs = [{"payload": {"n": n}, "queue": "mail", "priority": n % 2} for n in range(5)]
    ids = (await call(world, "client", "/jobs/batch", {"jobs": jobs}, 201))["job_ids"]
    leased = (await call(world, "worker", "/jobs/lease", {"queues": ["none", "mail"], "max": 10}, 200))["jobs"]
    assert [job["job_id"] for job in leased] == [ids[1], ids[3], ids[0], ids[2], ids[4]]
    assert leased[0]["payload"] == {"n": 1} and leased[0]["queue"] == "mail"
    acks = [{"job_id": job["job_id"], "lease_token": job["lease_token"], "result": 7} for job in leased[:3]]
    acks += [{"job_id": leased[3]["job_id"], "lease_token": "0" * 24}, {"job_id": "nope"}]
    results = (await call(world, "worker", "/jobs/ack", {"acks": acks}, 200))["results"]
    assert [result.get("ok") for result in results] == [True, True, True, None, None]
    assert (results[3]["code"], results[3]["state"]) == ("lease_lost", "RUNNING")
    assert results[4] == {"job_id": "nope", "error": "failed to ack job: job not found: nope", "code": "job_not_found"}
    assert (await world.show(leased[0]["job_id"]))["result"] == 7
    assert (await call(world, "worker", "/jobs/lease", {"queues": ["mail"], "max": 10}, 200)) == {"jobs": []}


async def test_a_batch_is_stored_whole_or_not_at_all(world: World) -> None:
    jobs = [{"payload": "good"}, {"payload": None}]
    await call(world, "client", "/jobs/batch", {"jobs": jobs}, 400)
    assert await call(world, "worker", "/jobs/lease", {"max": 5}, 200) == {"jobs": []}


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/jobs/batch", {}, "jobs is required"),
        ("/jobs/batch", {"jobs": {}}, "invalid JSON: jobs must be an array"),
        ("/jobs/batch", {"jobs": [{"payload": 1}, {"payload": ""}]}, "jobs[1]: payload is required"),
        ("/jobs/batch", {"jobs": [{"payload": 1, "colour": 2}]}, "jobs[0]: unknown field: colour"),
        (
            "/jobs/batch",
            {"jobs": [{"payload": 1, "queue": "a b"}]},
            "jobs[0]: queue must be 1 to 64 characters of A-Z a-z 0-9 . _ -",
        ),
        ("/jobs/batch", {"jobs": [{"payload": 1, "max_retries": -1}]}, "jobs[0]: max_retries must be >= 0"),
    ],
)
async def test_bad_input_is_named(world: World, path: str, body: Any, message: str) -> None:
    reply = await post(world, path, body, who="client")
    assert (reply.status, reply.error) == (400, message)


async def test_options_are_in_the_lease_and_in_the_job(world: World) -> None:
    fields: dict[str, Any] = {"queue": "mail", "group": "ann", "tags": ["a", "b", "a"], "traceparent": TRACE}
    fields["lease_ms"] = 5000
    job_id = await world.submit(**fields, expires_ms=60_000)
    shown = await world.show(job_id)
    assert (shown["group"], shown["tags"]) == ("ann", ["a", "b"])
    assert shown["expires_at"] > shown["created_at"]
    leased = await world.lease({"queues": ["mail"]})
    assert {name: leased[name] for name in ("group", "tags", "traceparent")} == {
        "group": "ann", "tags": ["a", "b"], "traceparent": TRACE,
    }  # fmt: skip
    now_us = world.engine.now_us()
    until_us = world.core.job(now_us, ALL, job_id).lease_until_us
    assert until_us is not None and 0 < until_us - now_us <= 5_000_000


async def test_the_lease_of_a_plain_job_has_no_optional_members(world: World) -> None:
    await world.submit()
    leased = await world.lease({})
    assert not {"group", "tags", "traceparent"} & leased.keys()


async def test_a_well_formed_header_traceparent_is_kept(world: World) -> None:
    for header, kept in ((TRACE, TRACE), ("nonsense", None)):
        reply = await world.call("client", "POST", "/jobs", {"payload": 1}, (("traceparent", header),))
        assert reply.status == 201
        assert (await world.lease({})).get("traceparent") == kept


async def test_backoff_of_a_job(world: World) -> None:
    job_id = await world.submit(max_retries=9, backoff={"base_ms": 100_000, "factor": 3, "cap_ms": 250_000})
    for bound_ms in (100_000, 250_000):
        leased = await world.lease({})
        at_us = world.engine.now_us()
        failed = {"result_error": "x", "lease_token": leased["lease_token"]}
        await world.call("worker", "POST", f"/jobs/{job_id}/ack", failed)
        wait_ms = (world.core.job(at_us, ALL, job_id).run_at_us - at_us) / 1000
        assert bound_ms / 2 <= wait_ms < bound_ms / 2 + 5_000  # jitter is a half here
        world.hands.ahead_us += 300_000_000


async def test_a_job_that_is_not_leased_in_time_expires(world: World) -> None:
    for field in ({"expires_ms": 1000}, {"expires_at": "2020-01-01T00:00:00Z"}):
        job_id = await world.submit(**field)
        world.hands.ahead_us += 1_000_001
        assert (await world.call("worker", "POST", "/jobs/lease")).status == 404
        assert (await world.show(job_id))["state"] == "EXPIRED"
        events = (await world.call("client", "GET", f"/jobs/{job_id}/history")).json["events"]
        assert [(event["what"], event["by"]) for event in events] == [
            ("expired", "system:expiry"),
            ("submitted", world.key_ids["client"]),
        ]


async def test_a_repeated_idempotency_key_gets_the_first_answer(world: World) -> None:
    first = await submit(world, {"payload": {"n": 1}, "priority": 2}, "k1")
    assert first.status == 201
    again = await submit(world, b'{"priority": 2,  "payload":{"n":1}}', "k1")
    assert (again.status, again.json) == (200, first.json)
    in_body = await submit(world, {"payload": {"n": 1}, "priority": 2, "idempotency_key": "k1"})
    assert (in_body.status, in_body.json) == (200, first.json)
    other = await submit(world, {"payload": {"n": 2}, "priority": 2}, "k1")
    assert (other.status, other.json["code"]) == (422, "idempotency_mismatch")
    assert (await submit(world, {"payload": {"n": 1}, "priority": 2}, "k1", who="stranger")).status == 201
    await world.call("client", "DELETE", f"/jobs/{first.json['job_id']}")
    gone = await submit(world, {"payload": {"n": 1}, "priority": 2}, "k1")
    assert (gone.status, gone.json) == (200, first.json)


async def test_an_idempotency_key_expires() -> None:
    async with running(idempotency_ms=60_000) as world:
        first = await submit(world, {"payload": 1}, "k")
        world.hands.ahead_us += 60_000_000
        second = await submit(world, {"payload": 2}, "k")
        assert (first.status, second.status) == (201, 201)


async def test_too_many_young_idempotency_keys() -> None:
    async with running(idempotency_keys_max=2) as world:
        for key in ("a", "b"):
            assert (await submit(world, {"payload": 1}, key)).status == 201
        full = await submit(world, {"payload": 1}, "c")
        assert (full.status, full.json["code"], full.headers["retry-after"]) == (429, "idempotency_full", "10")
        world.hands.ahead_us += 61_000_000
        assert (await submit(world, {"payload": 1}, "c")).status == 201


@pytest.mark.parametrize("key", ["", "x" * 201, "a\tb"])
async def test_an_invalid_idempotency_key_is_refused(world: World, key: str) -> None:
    reply = await world.call("client", "POST", "/jobs", {"payload": 1}, (("Idempotency-Key", key),))
    assert reply.status == 400
    assert reply.error.startswith("Idempotency-Key must")


async def test_header_and_body_with_different_idempotency_keys(world: World) -> None:
    reply = await submit(world, {"payload": 1, "idempotency_key": "a"}, "b")
    assert (reply.status, reply.error) == (
        400, "idempotency_key must be the same as the header Idempotency-Key, or left out",
    )  # fmt: skip


async def test_jobs_of_a_batch_have_idempotency_keys(world: World) -> None:
    jobs = [{"payload": n, "idempotency_key": f"k{n}"} for n in range(3)]
    first = await submit(world, {"jobs": jobs}, path="/jobs/batch")
    assert first.status == 201 and "duplicates" not in first.json
    mixed = await submit(world, {"jobs": [jobs[1], {"payload": "new"}]}, path="/jobs/batch")
    assert mixed.status == 201
    assert mixed.json["job_ids"][0] == first.json["job_ids"][1]
    assert mixed.json["duplicates"] == [0]
    again = await submit(world, {"jobs": jobs}, path="/jobs/batch")
    assert (again.status, again.json["job_ids"]) == (200, first.json["job_ids"])
    wrong = await submit(world, {"jobs": [{"payload": 7}, jobs[0] | {"payload": 9}]}, path="/jobs/batch")
    assert wrong.status == 422
    assert world.core.counts()["jobs"] == 4


async def test_a_batch_with_one_idempotency_key(world: World) -> None:
    body = {"jobs": [{"payload": n} for n in range(3)]}
    first = await submit(world, body, "whole", path="/jobs/batch")
    again = await submit(world, body, "whole", path="/jobs/batch")
    assert (first.status, again.status) == (201, 200)
    assert again.json["job_ids"] == first.json["job_ids"]
    assert world.core.counts()["jobs"] == 3
    other = await submit(world, {"jobs": body["jobs"][:2]}, "whole", path="/jobs/batch")
    assert (other.status, other.json["code"]) == (422, "idempotency_mismatch")
    both = await submit(world, {"jobs": [{"payload": 1, "idempotency_key": "x"}]}, "whole2", path="/jobs/batch")
    assert both.error == "jobs[0]: idempotency_key must be left out when the header Idempotency-Key is given"


async def test_a_unique_key_keeps_one_unfinished_job(world: World) -> None:
    job_id = await world.submit("one", unique_key="u")
    again = await submit(world, {"payload": "two", "unique_key": "u"})
    assert (again.status, again.json) == (200, {"job_id": job_id, "duplicate": True})
    assert (await submit(world, {"payload": "x", "unique_key": "u", "queue": "other"})).status == 201
    assert (await submit(world, {"payload": "x", "unique_key": "u"}, who="stranger")).status == 201
    leased = await world.lease({})
    assert leased["payload"] == "one"
    while_running = await submit(world, {"payload": "two", "unique_key": "u", "on_duplicate": "replace"})
    assert while_running.json == {"job_id": job_id, "duplicate": True}
    await world.call("worker", "POST", f"/jobs/{job_id}/ack", {"lease_token": leased["lease_token"]})
    assert (await submit(world, {"payload": "two", "unique_key": "u"})).status == 201


async def test_replace_changes_the_job_that_waits(world: World) -> None:
    job_id = await world.submit("one", unique_key="u", delay_ms=60_000)
    reply = await submit(world, {"payload": "two", "unique_key": "u", "on_duplicate": "replace", "priority": 9})
    assert (reply.status, reply.json) == (200, {"job_id": job_id, "duplicate": True, "replaced": True})
    leased = await world.lease({})
    assert (leased["job_id"], leased["payload"], leased["priority"]) == (job_id, "two", 9)
    events = (await world.call("client", "GET", f"/jobs/{job_id}/history")).json["events"]
    assert [event["what"] for event in events] == ["replaced", "submitted"]


async def test_the_limit_of_an_owners_unfinished_jobs() -> None:
    async with running(owner_depth_max=2) as world:
        for _ in range(2):
            await world.submit()
        full = await submit(world, {"payload": 1})
        assert (full.status, full.json["code"], full.headers["retry-after"]) == (429, "owner_full", "5")
        batch = await submit(world, {"jobs": [{"payload": 1}]}, path="/jobs/batch")
        assert batch.status == 429
        await world.submit(who="stranger")
        leased = await world.lease({})
        await world.call("worker", "POST", f"/jobs/{leased['job_id']}/ack", {"lease_token": leased["lease_token"]})
        await world.submit()


@pytest.mark.parametrize("lane", [True, False])
async def test_the_limit_of_queues(lane: bool) -> None:
    """Each way refuses the job for a new queue, and takes one for a queue that exists."""
    async with running(queues_max=2, lane=lane) as world:
        await world.submit(queue="a")
        job_id = await world.submit(queue="b")
        full = await submit(world, {"payload": 1, "queue": "c"})
        assert (full.status, full.json["code"], full.headers["retry-after"]) == (429, "queues_full", "5")
        assert "at most 2 queues" in full.json["error"]
        batch = await submit(world, {"jobs": [{"payload": 1, "queue": "a"}, {"payload": 1}]}, path="/jobs/batch")
        assert (batch.status, batch.json["code"]) == (429, "queues_full")
        moved = await world.call("admin", "PATCH", f"/jobs/{job_id}", {"queue": "c"})
        assert (moved.status, moved.json["code"]) == (429, "queues_full")
        await world.submit(queue="a")
        await world.call("client", "DELETE", f"/jobs/{job_id}")


async def test_a_batch_is_201_if_one_of_its_jobs_is_new_and_200_if_none_is(world: World) -> None:
    """As a single submit, whatever makes them known: unique keys, their own idempotency keys, the batch's."""
    for kind in ("unique_key", "idempotency_key"):
        known = [{"payload": n, kind: f"{kind}-{n}"} for n in range(2)]
        for jobs, status in ((known[:1], 201), (known[:1], 200), (known, 201), (known, 200)):
            reply = await world.call("client", "POST", "/jobs/batch", {"jobs": jobs})
            assert reply.status == status, (kind, reply.body)
    for status in (201, 200):
        reply = await world.call(
            "client", "POST", "/jobs/batch", {"jobs": [{"payload": 1}]}, (("Idempotency-Key", "whole"),)
        )
        assert reply.status == status
