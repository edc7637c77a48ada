"""Find jobs by how their last attempts ended: error, error code, worker; in lists and by bulk changes."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from fastq.engine import reads
from fastq.log.memory import MemoryLog
from tests.http.resources.requests import get
from tests.http.world import World, running

FAR_MS = 3_600_000


async def fail(world: World, error: str = "", worker: str = "w1", who: str = "client", **ack: Any) -> str:
    """Submit a job and end its only attempt."""
    job_id = await world.submit(who=who, max_retries=0, priority=9)
    leased = await world.lease({"worker_id": worker} if worker else {})
    assert leased["job_id"] == job_id
    body = {"lease_token": leased["lease_token"]} | ({"result_error": error} if error else {}) | ack
    reply = await world.call("worker", "POST", f"/jobs/{job_id}/ack", body)
    assert reply.status == 200, reply.body
    return job_id


async def listed(world: World, query: str = "", who: str = "client") -> dict[str, dict[str, Any]]:
    """All pages, by job id."""
    found: dict[str, dict[str, Any]] = {}
    cursor = ""
    while True:
        answer = await get(world, f"/jobs?{query}{cursor}", who)
        found |= {job["job_id"]: job for job in answer["jobs"]}
        assert ("cursor" in answer) == ("examined_until" in answer)
        if "cursor" not in answer:
            return found
        cursor = f"&cursor={answer['cursor']}"


async def test_a_list_shows_how_jobs_ended(world: World) -> None:
    failed = await fail(world, "SMTP 550: no such user\nTraceback: 12 lines", error_code="smtp_550")
    acked = await fail(world, result={"n": 1})
    discarded = await fail(world, outcome="discard")
    waiting = await world.submit()
    jobs = await listed(world)
    assert jobs[failed]["result_error"] == "SMTP 550: no such user"
    assert (jobs[failed]["error_code"], jobs[failed]["state"]) == ("smtp_550", "DEAD")
    assert jobs[discarded]["result_error"] == "discarded"
    assert {"result_error", "error_code"}.isdisjoint(jobs[acked]) and "finished_at" in jobs[acked]
    assert {"result_error", "error_code", "finished_at"}.isdisjoint(jobs[waiting])
    shown = await world.show(failed)
    assert shown["result_error"] == "SMTP 550: no such user\nTraceback: 12 lines"
    assert shown["error_code"] == "smtp_550"
    assert shown["created_at"] <= shown["finished_at"] == jobs[failed]["finished_at"]


async def test_every_final_state_has_its_time(world: World) -> None:
    cancelled, expiring = await world.submit(), await world.submit(expires_ms=1_000)
    await world.call("client", "POST", f"/jobs/{cancelled}/cancel")
    world.hands.ahead_us += 2_000_000
    world.engine.run_due()
    for job_id, state in ((cancelled, "CANCELLED"), (expiring, "EXPIRED")):
        shown = await world.show(job_id)
        assert shown["state"] == state and shown["finished_at"] >= shown["created_at"]


async def test_a_redriven_job_is_not_finished_and_keeps_its_error(world: World) -> None:
    failed = await fail(world, "boom", error_code="e1")
    await world.call("client", "POST", f"/jobs/{failed}/redrive")
    job = (await listed(world, "error=boom"))[failed]
    assert (job["state"], job["result_error"], job["error_code"]) == ("READY", "boom", "e1")
    assert "finished_at" not in job and "finished_at" not in await world.show(failed)


async def test_filters(world: World) -> None:
    one = await fail(world, "SMTP 550: no such user", error_code="smtp")
    two = await fail(world, "line 1\nSMTP 421: try again", worker="w2", error_code="smtp")
    three = await fail(world, "disk full", worker="w2")
    lost = await fail(world, outcome="discard", worker="w3")
    other = await fail(world, "SMTP of another owner", who="stranger", error_code="smtp")
    acked = await fail(world, worker="w2")
    held = await world.submit()
    await world.lease({"worker_id": "w2"})
    assert list(await listed(world, "error=SMTP")) == [two, one], "the whole text is searched"
    assert list(await listed(world, "error=SMTP", "admin")) == [other, two, one]
    assert list(await listed(world, "error=smtp")) == []
    assert list(await listed(world, "error=" + quote("disk full"))) == [three]
    assert list(await listed(world, "error=discarded")) == [lost], "as it is shown"
    assert list(await listed(world, "error_code=smtp")) == [two, one]
    assert list(await listed(world, "error_code=smt")) == []
    assert list(await listed(world, "worker=w2")) == [held, acked, three, two]
    assert list(await listed(world, "worker=w2&error=SMTP&state=DEAD&q=work")) == [two]
    assert list(await listed(world, "worker=w2&q=play")) == []


async def test_a_retried_job_belongs_to_the_worker_that_holds_it(world: World) -> None:
    job_id = await world.submit(max_retries=5)
    leased = await world.lease({"worker_id": "w1"})
    body = {"lease_token": leased["lease_token"], "result_error": "boom", "retry_after_ms": 0}
    await world.call("worker", "POST", f"/jobs/{job_id}/ack", body)
    assert list(await listed(world, "worker=w1")) == [job_id]
    await world.lease({"worker_id": "w2"})
    assert list(await listed(world, "worker=w1")) == []
    assert list(await listed(world, "worker=w2&error=boom")) == [job_id]


async def test_a_lost_lease_is_found_by_its_outcome_and_worker(world: World) -> None:
    job_id = await world.submit()
    await world.lease({"worker_id": "gone", "lease_ms": 1_000})
    world.hands.ahead_us += 60_000_000
    world.engine.run_due()
    assert list(await listed(world, "error=lease_expired")) == [job_id]
    assert list(await listed(world, "worker=gone")) == [job_id]


async def test_a_search_says_how_far_it_looked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on from there, over ready jobs too, until all were looked at."""
    old = await fail(world, "needle")
    for _ in range(30):
        await fail(world, "hay")
    body = {"jobs": [{"payload": n} for n in range(200)]}
    newest = (await world.call("client", "POST", "/jobs/batch", body)).json["job_ids"]
    monkeypatch.setattr(reads, "SLICE_EXAMINED", 20)
    monkeypatch.setattr(reads, "PAGE_EXAMINED_MAX", 60)
    answer = await get(world, "/jobs?error=needle")
    assert answer["jobs"] == []
    assert answer["examined_until"] == (await world.show(newest[-60]))["created_at"]
    pages = 1
    while "cursor" in answer:
        before = answer["examined_until"]
        answer = await get(world, f"/jobs?error=needle&cursor={answer['cursor']}")
        pages += 1
        assert answer.get("examined_until", "") <= before
    assert [job["job_id"] for job in answer["jobs"]] == [old]
    assert pages == 4


async def test_a_page_reads_a_limited_number_of_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "READ_BYTES_MAX", 3_000)
    monkeypatch.setattr(reads, "SLICE_BYTES", 1_000)
    failed = [await fail(world, f"boom {n}", result="x" * 900) for n in range(10)]
    page = (await get(world, "/jobs"))["jobs"]
    assert 0 < len(page) < 10
    jobs = await listed(world)
    assert list(jobs) == failed[::-1]
    assert [job["result_error"] for job in jobs.values()] == [f"boom {n}" for n in range(10)][::-1]
    assert list(await listed(world, "error=boom&limit=2")) == failed[::-1]


async def test_jobs_that_did_not_fail_cost_a_list_no_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await fail(world, result="r" * 100)
    await world.submit()
    reads_of_records: list[int] = []
    closes = world.engine.commits.read

    async def counted(places: Any) -> Any:
        reads_of_records.append(len(places))
        return await closes(places)

    monkeypatch.setattr(world.engine.commits, "read", counted)
    assert len(await listed(world)) == 2
    assert sum(reads_of_records) == 0
    await listed(world, "worker=w1")
    assert sum(reads_of_records) == 1


async def test_errors_are_found_after_a_restart() -> None:
    log = MemoryLog()
    async with running(log=log) as world:
        failed = await fail(world, "boom", error_code="e1")
    async with running(log=log.crash()) as world:
        job = (await listed(world, "error=boom&error_code=e1&worker=w1", "admin"))[failed]
        assert job["result_error"] == "boom"


@pytest.mark.parametrize("action", ["cancel", "redrive", "delete"])
async def test_bulk_changes_by_error_code_and_worker(world: World, action: str) -> None:
    mine = [await fail(world, "boom", error_code="e1") for _ in range(3)]
    await fail(world, "bang", error_code="e1")
    await fail(world, "boom", error_code="e2")
    await fail(world, "boom", error_code="e1", worker="w2")
    await fail(world, "boom", error_code="e1", who="stranger")
    if action == "cancel":
        for job_id in mine:
            await world.call("client", "POST", f"/jobs/{job_id}/redrive")
    chosen = {"error": "boom", "error_code": "e1", "worker": "w1"}
    reply = await world.call("client", "POST", f"/jobs/{action}", {"filter": chosen})
    assert (reply.status, reply.json["matched"], reply.json["changed"]) == (200, 3, 3)
    for job_id in mine:
        reply = await world.call("client", "GET", f"/jobs/{job_id}")
        assert reply.status == 404 if action == "delete" else reply.json["state"] != "DEAD"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("error=", "error must be of length >= 1"),
        ("error=" + "x" * 201, "error must be at most 200 bytes"),
        ("error_code=" + "x" * 65, "error_code must be 1 to 64 bytes"),
        ("error_code=", "error_code must be 1 to 64 bytes"),
        ("worker=", "worker must be of length >= 1"),
        ("worker=" + "x" * 201, "worker must be at most 200 bytes"),
    ],
)
async def test_bad_parameters(world: World, query: str, message: str) -> None:
    reply = await world.call("client", "GET", f"/jobs?{query}")
    assert (reply.status, reply.error) == (400, message)
    name, value = query.split("=")
    reply = await world.call("client", "POST", "/jobs/delete", {"filter": {name: value}})
    assert (reply.status, reply.error) == (400, f"filter.{message}")
