"""The audit log: an entry in one record with each change, pages, the limit."""

from __future__ import annotations

from typing import Any

import pytest

import fastq.services.audit
from fastq.engine.documents import DocumentKind
from tests.http.world import World, running


async def entries(world: World, query: str = "") -> list[dict[str, Any]]:
    reply = await world.call("admin", "GET", f"/admin/audit{query}")
    assert reply.status == 200, reply.body
    found: list[dict[str, Any]] = reply.json["entries"]
    return found


async def test_entries(world: World) -> None:
    schedule = {"cron": "0 3 * * *", "job": {"payload": "secret text"}}
    await world.call("admin", "PUT", "/queues/mail", {"concurrency": 3})
    await world.call("admin", "POST", "/queues/mail/pause")
    await world.call("admin", "PUT", "/schedules/nightly", schedule)
    await world.call("admin", "POST", "/schedules/nightly/run")
    await world.call("client", "POST", "/jobs/cancel", {"filter": {"queue": "default"}})  # nothing fits
    job_id = await world.submit()
    await world.call("client", "POST", "/jobs/cancel", {"filter": {"queue": "default", "ids": [job_id]}})
    await world.call("admin", "POST", "/queues/mail/resume")
    await world.call("admin", "DELETE", "/queues/mail")
    await world.call("admin", "DELETE", "/schedules/nightly")
    found = await entries(world)
    assert [(entry["action"], entry["target"], entry["owner_id"]) for entry in found[::-1]] == [
        ("queue.put", "mail", "admin-owner"),
        ("queue.pause", "mail", "admin-owner"),
        ("schedule.put", "nightly", "admin-owner"),
        ("schedule.run", "nightly", "admin-owner"),
        ("jobs.cancel", "", "client-owner"),
        ("queue.resume", "mail", "admin-owner"),
        ("queue.delete", "mail", "admin-owner"),
        ("schedule.delete", "nightly", "admin-owner"),
    ]
    by_action = {entry["action"]: entry for entry in found}
    assert by_action["queue.put"]["details"]["settings"]["concurrency"] == 3
    assert by_action["queue.put"]["key_id"] == world.key_ids["admin"]
    assert by_action["jobs.cancel"]["details"] == {"filter": {"queue": "default", "ids": 1}, "matched": 1, "changed": 1}
    assert by_action["schedule.put"]["details"]["cron"] == "0 3 * * *"
    assert [entry["number"] for entry in found] == list(range(8, 0, -1))
    assert b"secret text" not in (await world.call("admin", "GET", "/admin/audit")).body


async def test_keys(world: World) -> None:
    body = {"name": "new", "owner_id": "team", "type": "client"}
    made = (await world.call("admin", "POST", "/admin/keys", body)).json
    await world.call("admin", "POST", f"/admin/keys/{made['key_id']}/rotate", {"overlap_ms": 0})
    await world.call("admin", "DELETE", f"/keys/{made['key_id']}")
    await world.call("admin", "DELETE", f"/keys/{made['key_id']}")  # it was: nothing happens
    await world.call("client", "DELETE", f"/keys/{world.key_ids['stranger']}")  # refused
    assert [(entry["action"], entry["target"], entry["details"]) for entry in await entries(world)] == [
        ("key.revoke", made["key_id"], {}),
        ("key.rotate", made["key_id"], {"overlap_ms": 0}),
        ("key.create", made["key_id"], {"name": "new", "owner_id": "team", "type": "client"}),
    ]
    assert made["key"].encode() not in (await world.call("admin", "GET", "/admin/audit")).body


async def test_a_change_and_its_audit_entry_are_one_record(world: World) -> None:
    frames = len(world.log._frames)
    await world.call("admin", "PUT", "/queues/mail", {"concurrency": 3})
    await world.call("admin", "PUT", "/schedules/s", {"cron": "0 3 * * *", "job": {"payload": 1}})
    await world.call("admin", "POST", "/admin/keys", {"name": "new", "owner_id": "team", "type": "client"})
    await world.call("admin", "DELETE", "/schedules/s")
    assert [frame.count for frame in world.log._frames[frames:]] == [1, 1, 1, 1]
    assert len(await entries(world)) == 4


async def test_a_change_without_effect_has_no_entry(world: World) -> None:
    for _ in range(2):
        await world.call("admin", "PUT", "/queues/mail", {"concurrency": 3})
    await world.call("admin", "PUT", "/queues/mail", {"concurrency": 0})
    await world.call("admin", "DELETE", "/queues/absent")
    await world.submit()
    await world.call("admin", "POST", "/jobs/delete", {"filter": {"queue": "default"}, "dry_run": True})
    assert len(await entries(world)) == 1


async def test_paging(world: World) -> None:
    for n in range(1, 8):
        await world.call("admin", "PUT", "/queues/mail", {"concurrency": n})
    seen, cursor = [], ""
    while True:
        page = (await world.call("admin", "GET", f"/admin/audit?limit=3{cursor}")).json
        seen.append([entry["number"] for entry in page["entries"]])
        if "cursor" not in page:
            break
        cursor = f"&cursor={page['cursor']}"
    assert seen == [[7, 6, 5], [4, 3, 2], [1]]
    for query, message in (("limit=0", "limit must be >= 1"), ("cursor=-1", "cursor must be >= 0"), ("x=1", "unknown")):
        assert (await world.call("admin", "GET", f"/admin/audit?{query}")).error.startswith(message)


async def test_only_the_last_entries_are_kept_even_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastq.services.audit, "ENTRIES_KEPT", 5)
    async with running() as world:
        for n in range(1, 9):
            await world.call("admin", "PUT", "/queues/mail", {"concurrency": n})
        assert [entry["number"] for entry in await entries(world)] == [8, 7, 6, 5, 4]
        assert len(world.engine.documents(DocumentKind.AUDIT)) == 5
        log = world.log.crash()
    async with running(log=log) as world:
        assert [entry["number"] for entry in await entries(world)] == [8, 7, 6, 5, 4]
        await world.call("admin", "DELETE", "/queues/mail")
        assert [entry["number"] for entry in await entries(world, "?limit=2")] == [9, 8]
