"""The API row by row: each status and message that a row promises."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import msgspec
import pytest

from fastq.http.errors import Failure
from fastq.http.resources import jobs, keys, lease, submit
from tests.http.wire import Reply
from tests.http.world import World, running

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
STOPPING = "the server is stopping: try again when it is back"
ABSENT = "01a20cc3-16bb-72d4-8000-000000646464"


def shaped(reply: Reply, status: int, schema: Any) -> Any:
    """The answer's JSON, after a look at its status and that it has the names of `schema` and no others."""
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "application/json"
    msgspec.json.decode(reply.body, type=schema)
    return reply.json


def refused(reply: Reply, status: int, message: str, code: str) -> None:
    body = shaped(reply, status, Failure)
    assert (body["error"], body["code"]) == (message, code)


# --- POST /jobs -------------------------------------------------------------------------------------------------------


async def test_submit(world: World) -> None:
    body = shaped(await world.call("client", "POST", "/jobs", {"payload": "p"}), 201, submit.JobCreated)
    assert UUID.fullmatch(body["job_id"])


@pytest.mark.parametrize("body", [{}, {"payload": None}, {"payload": ""}, {"max_retries": 1}])
async def test_submit_without_payload(world: World, body: Any) -> None:
    reply = await world.call("client", "POST", "/jobs", body)
    refused(reply, 400, "payload is required", "invalid_request")


async def test_submit_negative_max_retries(world: World) -> None:
    reply = await world.call("client", "POST", "/jobs", {"payload": "p", "max_retries": -1})
    refused(reply, 400, "max_retries must be >= 0", "invalid_request")


async def test_submit_keeps_priority_and_retries(world: World) -> None:
    shown = await world.show(await world.submit(priority=-7, max_retries=0))
    assert (shown["priority"], shown["max_retries"], shown["queue"]) == (-7, 0, "default")


async def test_max_retries_left_out_is_the_servers() -> None:
    async with running(max_retries=9) as world:
        assert (await world.show(await world.submit()))["max_retries"] == 9


async def test_delayed_job_is_scheduled_and_not_leased(world: World) -> None:
    job_id = await world.submit(delay_ms=60_000)
    shown = await world.show(job_id)
    assert shown["state"] == "SCHEDULED"
    assert shown["run_at"] > shown["created_at"]
    assert (await world.call("worker", "POST", "/jobs/lease")).status == 404


async def test_run_at_is_kept_to_the_microsecond(world: World) -> None:
    shown = await world.show(await world.submit(run_at="2031-02-03T04:05:06.789012345+01:00"))
    assert (shown["state"], shown["run_at"]) == ("SCHEDULED", "2031-02-03T03:05:06.789012Z")


async def test_run_at_in_the_past_is_now(world: World) -> None:
    assert (await world.show(await world.submit(run_at="1969-12-31T23:59:59Z")))["state"] == "READY"


async def test_submit_while_draining(world: World) -> None:
    world.engine.drain()
    reply = await world.call("client", "POST", "/jobs", {"payload": "p"})
    refused(reply, 503, STOPPING, "draining")
    assert reply.headers["retry-after"] == "5"


# --- POST /jobs/lease -------------------------------------------------------------------------------------------------


async def test_lease_without_a_body(world: World) -> None:
    job_id = await world.submit("work", priority=3, max_retries=5)
    leased = shaped(await world.call("worker", "POST", "/jobs/lease"), 200, lease.JobLeased)
    token, until, created = leased.pop("lease_token"), leased.pop("lease_until"), leased.pop("created_at")
    assert leased == {
        "job_id": job_id, "payload": "work", "attempt": 1, "queue": "default", "priority": 3, "max_retries": 5
    }  # fmt: skip
    assert token
    assert until > created
    shown = await world.show(job_id)
    assert (shown["state"], shown["attempts"], shown["lease_until"]) == ("RUNNING", 1, until)


PAYLOADS = [
    b'"text \\u00e9 \xc3\xa9"', b'{"a": [1,  2.50, 1e-999, 1E308],"b":null}', b"5", b"-0.0", b"true",
    b'[ "x" ]', b"{}",
]  # fmt: skip


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_lease_with_a_body_gives_the_payload_byte_for_byte(world: World, payload: bytes) -> None:
    assert (await world.call("client", "POST", "/jobs", b'{"payload": ' + payload + b" }")).status == 201
    reply = await world.call("worker", "POST", "/jobs/lease", {})
    assert reply.status == 200
    assert b'"payload":' + payload + b',"lease_until":' in reply.body


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_lease_without_a_body_gives_a_string(world: World, payload: bytes) -> None:
    await world.call("client", "POST", "/jobs", b'{"payload":' + payload + b"}")
    given = (await world.lease())["payload"]
    text = payload.decode()
    assert given == (msgspec.json.decode(payload) if text.startswith('"') else text)


async def test_lease_length(world: World) -> None:
    await world.submit()
    now_us = world.engine.now_us()
    leased = await world.lease({"lease_ms": 3_600_000, "worker_id": "w-1"})
    until_s = datetime.fromisoformat(leased["lease_until"]).timestamp()
    assert 3_600 <= until_s - now_us / 1e6 < 3_630


async def test_a_lease_without_a_ready_job(world: World) -> None:
    reply = await world.call("worker", "POST", "/jobs/lease")
    refused(reply, 404, "no jobs available: no jobs available", "no_jobs")


async def test_lease_goes_by_priority_then_age(world: World) -> None:
    first, urgent, second = await world.submit(), await world.submit(priority=1), await world.submit()
    assert [(await world.lease())["job_id"] for _ in range(3)] == [urgent, first, second]


# --- POST /jobs/{id}/ack ----------------------------------------------------------------------------------------------


async def test_ack_without_a_body(world: World) -> None:
    job_id = await world.submit()
    await world.lease()
    reply = await world.call("worker", "POST", f"/jobs/{job_id}/ack")
    assert (reply.status, reply.body) == (200, b"")
    assert "content-type" not in reply.headers
    assert (await world.show(job_id))["state"] == "ACKED"


async def test_ack_with_a_result(world: World) -> None:
    job_id = await world.submit()
    await world.lease()
    reply = await world.call("worker", "POST", f"/jobs/{job_id}/ack", b'{"result": {"n": 1.50} ,"result_error":""}')
    assert reply.status == 200
    looked = await world.call("client", "GET", f"/jobs/{job_id}")
    assert b'"result":{"n": 1.50}' in looked.body
    assert "result_error" not in shaped(looked, 200, jobs.JobShown)


@pytest.mark.parametrize("result", ["null", '""'])
async def test_an_empty_result_is_left_out(world: World, result: str) -> None:
    job_id = await world.submit()
    await world.lease()
    await world.call("worker", "POST", f"/jobs/{job_id}/ack", b'{"result":' + result.encode() + b"}")
    shown = await world.show(job_id)
    assert shown["state"] == "ACKED"
    assert "result" not in shown


async def test_ack_with_an_error_retries_then_dies(world: World) -> None:
    job_id = await world.submit(max_retries=2)
    for number, state in ((1, "RETRY"), (2, "DEAD")):
        leased = await world.lease({})
        assert leased["attempt"] == number
        body = {"result_error": f"boom {number}", "lease_token": leased["lease_token"]}
        if state == "RETRY":
            body["retry_after_ms"] = 0
        assert (await world.call("worker", "POST", f"/jobs/{job_id}/ack", body)).status == 200
        shown = await world.show(job_id)
        assert (shown["state"], shown["result_error"]) == (state, f"boom {number}")
        assert ("run_at" in shown) == (state == "RETRY")


async def test_retry_waits_for_its_backoff(world: World) -> None:
    job_id = await world.submit()
    await world.lease()
    await world.call("worker", "POST", f"/jobs/{job_id}/ack", {"result_error": "boom"})
    assert (await world.show(job_id))["state"] == "RETRY"
    assert (await world.call("worker", "POST", "/jobs/lease")).status == 404


@pytest.mark.parametrize("body", [{"outcome": "error"}, {"outcome": "error", "result_error": ""}])
async def test_outcome_error_needs_no_text(world: World, body: Any) -> None:
    job_id = await world.submit(max_retries=1)
    await world.lease()
    assert (await world.call("worker", "POST", f"/jobs/{job_id}/ack", body)).status == 200
    shown = await world.show(job_id)
    assert shown["state"] == "DEAD"
    assert shown["result_error"]


async def test_outcome_ok(world: World) -> None:
    job_id = await world.submit()
    await world.lease()
    assert (await world.call("worker", "POST", f"/jobs/{job_id}/ack", {"outcome": "ok"})).status == 200
    assert (await world.show(job_id))["state"] == "ACKED"


async def test_ack_of_an_absent_job(world: World) -> None:
    reply = await world.call("worker", "POST", f"/jobs/{ABSENT}/ack", {})
    refused(reply, 400, f"failed to ack job: job not found: {ABSENT}", "job_not_found")


async def test_ack_of_a_job_that_does_not_run(world: World) -> None:
    job_id = await world.submit()
    reply = await world.call("worker", "POST", f"/jobs/{job_id}/ack", {})
    refused(reply, 400, "failed to ack job: job cannot be acked in state: READY", "not_running")
    assert reply.json["state"] == "READY"


async def test_a_repeated_ack_with_the_token_gets_the_same_answer(world: World) -> None:
    job_id = await world.submit()
    body = {"lease_token": (await world.lease())["lease_token"], "result": "r"}
    for _ in range(2):
        assert (await world.call("worker", "POST", f"/jobs/{job_id}/ack", body)).status == 200
    other = await world.call("worker", "POST", f"/jobs/{job_id}/ack", body | {"result": "s"})
    refused(
        other,
        409,
        "failed to ack job: lease lost: the token is not the current lease's, the job is in state: ACKED",
        "lease_lost",
    )


@pytest.mark.parametrize("token", ["", "x", "0000000147c5b9b786cd2dfa", "z" * 200])
async def test_ack_with_another_token(world: World, token: str) -> None:
    job_id = await world.submit()
    await world.lease()
    reply = await world.call("worker", "POST", f"/jobs/{job_id}/ack", {"lease_token": token})
    refused(
        reply,
        409,
        "failed to ack job: lease lost: the token is not the current lease's, the job is in state: RUNNING",
        "lease_lost",
    )
    assert reply.json["state"] == "RUNNING"


async def test_ack_without_a_token_of_a_lease_with_a_body(world: World) -> None:
    job_id = await world.submit()
    await world.lease({})
    reply = await world.call("worker", "POST", f"/jobs/{job_id}/ack", {"result": "r"})
    assert reply.status == 409
    assert reply.json["code"] == "lease_lost"


async def test_an_ack_is_taken_while_draining(world: World) -> None:
    job_id = await world.submit()
    await world.lease()
    world.engine.drain()
    assert (await world.call("worker", "POST", f"/jobs/{job_id}/ack")).status == 200
    refused(await world.call("worker", "POST", "/jobs/lease"), 503, STOPPING, "draining")


# --- GET /jobs/{id} ---------------------------------------------------------------------------------------------------


async def test_show_a_ready_job(world: World) -> None:
    job_id = await world.submit()
    shown = shaped(await world.call("client", "GET", f"/jobs/{job_id}"), 200, jobs.JobShown)
    created = shown.pop("created_at")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", created)
    assert shown == {
        "job_id": job_id, "state": "READY", "attempts": 0, "max_retries": 3, "priority": 0, "queue": "default"
    }  # fmt: skip


ODD_IDS = ["nonexistent-job-id", "%00", "%E2%82%AC", "%ff", "x" * 4000, "..", "a'b\"c", ABSENT.upper() + "0", "%0d%0aX"]


@pytest.mark.parametrize("job_id", ODD_IDS)
async def test_show_an_absent_job(world: World, job_id: str) -> None:
    reply = await world.call("client", "GET", f"/jobs/{job_id}")
    body = shaped(reply, 404, Failure)
    assert body["error"].startswith("job not found: job not found: ")
    assert body["code"] == "job_not_found"
    acked = await world.call("worker", "POST", f"/jobs/{job_id}/ack")
    assert acked.status == 400
    assert acked.error.startswith("failed to ack job: job not found: ")


async def test_the_error_names_the_id(world: World) -> None:
    reply = await world.call("client", "GET", "/jobs/nonexistent-job-id")
    refused(reply, 404, "job not found: job not found: nonexistent-job-id", "job_not_found")


async def test_show_after_the_lease_expired() -> None:
    async with running(lease_check_ms=10) as world:
        job_id = await world.submit(max_retries=1)
        await world.lease()
        world.hands.ahead_us += 31_000_000
        while (shown := await world.show(job_id))["state"] == "RUNNING":
            pass
        assert (shown["state"], shown["result_error"]) == ("DEAD", "lease_expired")


# --- keys -------------------------------------------------------------------------------------------------------------


async def test_create_key(world: World) -> None:
    body = {"name": "n", "owner_id": "o", "type": "worker"}
    reply = await world.call("admin", "POST", "/admin/keys", body)
    made = shaped(reply, 201, keys.KeyShown)
    assert re.fullmatch(r"worker_[A-Za-z0-9_-]{32}", made["key"])
    assert made["key_id"] not in made["key"]
    assert {name: made[name] for name in body} == body
    assert made["scopes"] == ["jobs:lease", "jobs:ack", "jobs:read", "keys:read", "keys:revoke"]
    assert made["created_at"] == made["last_used_at"]
    assert reply.headers["cache-control"] == "no-store"
    used = await world.call(None, "GET", "/keys", headers=(("Authorization", f"Bearer {made['key']}"),))
    assert [entry["key_id"] for entry in shaped(used, 200, list[keys.KeyShown])] == [made["key_id"]]


KEY = {"name": "n", "owner_id": "o", "type": "client"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        *[({k: v for k, v in KEY.items() if k != name}, f"{name} is required") for name in KEY],
        *[(KEY | {name: ""}, f"{name} is required") for name in KEY],
        *[(KEY | {name: None}, f"{name} is required") for name in KEY],
        (KEY | {"type": "boss"}, "invalid key type: \"boss\" (must be 'client', 'worker', or 'admin')"),
    ],
)
async def test_create_key_without(world: World, body: Any, message: str) -> None:
    refused(await world.call("admin", "POST", "/admin/keys", body), 400, message, "invalid_request")


async def test_list_keys(world: World) -> None:
    for who, path, names in (
        ("admin", "/admin/keys", {"client", "worker", "admin", "stranger"}),
        ("admin", "/keys", {"admin"}),
        ("client", "/keys", {"client"}),
        ("worker", "/keys", {"worker"}),
    ):
        reply = await world.call(who, "GET", path)
        entries = shaped(reply, 200, list[keys.KeyShown])
        assert {entry["name"] for entry in entries} == names
        for entry in entries:
            secret = world.secrets[entry["name"]]
            assert entry["key_id"] == world.key_ids[entry["name"]]
            assert "*" in entry["key"]
            assert entry["key"][-4:] == secret[-4:]
            assert world.secrets[entry["name"]].encode() not in reply.body


@pytest.mark.parametrize("named_by", ["key_ids", "secrets"])
async def test_revoke_key(world: World, named_by: str) -> None:
    secret = await world.make_key("second", "client", "client-owner")
    name = getattr(world, named_by)["second"]
    revoked = shaped(await world.call("client", "DELETE", f"/keys/{name}"), 200, keys.KeyRevoked)
    assert revoked["message"] == "Key revoked successfully"
    assert revoked["key_id"] == world.key_ids["second"]
    assert secret not in revoked.values()
    again = shaped(await world.call("admin", "DELETE", f"/keys/{name}"), 200, keys.KeyRevoked)
    assert again["revoked_at"] == revoked["revoked_at"]
    refused(await world.call("second", "GET", "/keys"), 401, "API key has been revoked", "unauthenticated")
    listed = {entry["name"]: entry for entry in (await world.call("admin", "GET", "/admin/keys")).json}
    assert listed["second"]["revoked_at"] == revoked["revoked_at"]
    assert "revoked_at" not in listed["client"]


async def test_a_key_may_revoke_itself(world: World) -> None:
    assert (await world.call("client", "DELETE", f"/keys/{world.secrets['client']}")).status == 200
    assert (await world.call("client", "GET", "/keys")).status == 401


async def test_revoke_refused(world: World) -> None:
    refused(await world.call("admin", "DELETE", "/keys/worker_unknown"), 404, "key not found", "key_not_found")
    refused(
        await world.call("client", "DELETE", f"/keys/{world.key_ids['worker']}"),
        403,
        "access denied: not the owner",
        "not_owner",
    )


# --- who asks ---------------------------------------------------------------------------------------------------------

BAD_SCHEME = "Invalid Authorization header format. Expected: Bearer <token>"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "Missing Authorization header"),
        ("Basic abc", BAD_SCHEME),
        ("Bearer", BAD_SCHEME),
        ("Bearer ", BAD_SCHEME),
        ("Bearerx", BAD_SCHEME),
        ("bearer x", "Invalid API key"),
        ("Bearer client_unknown", "Invalid API key"),
        ("Bearer caf\xe9", "Invalid API key"),
    ],
)
@pytest.mark.parametrize("path", ["/jobs", "/nope", "/jobs/x/ack", "/health/"])
async def test_unauthenticated(world: World, header: str | None, message: str, path: str) -> None:
    headers = () if header is None else (("Authorization", header),)
    reply = await world.call(None, "POST", path, headers=headers)
    refused(reply, 401, message, "unauthenticated")
    assert reply.headers["www-authenticate"] == "Bearer"


async def test_scope_missing(world: World) -> None:
    refused(await world.call("client", "POST", "/jobs/lease"), 403, "Insufficient permissions", "forbidden")
    refused(await world.call("client", "GET", "/admin/keys"), 403, "Admin access required", "forbidden")


async def test_unknown_path(world: World) -> None:
    for path in ("/nope", "/job", "/jobs/a/b", "/jobs/a/ack/", "/keys/a/b", "/%2e%2e/jobs/x"):
        refused(await world.call("admin", "GET", path), 404, "path not found", "path_not_found")


async def test_a_long_id_is_not_repeated_whole(world: World) -> None:
    long = "x" * 8_000
    shown = await world.call("client", "GET", f"/jobs/{long}")
    acked = await world.call("worker", "POST", f"/jobs/{long}/ack", {})
    assert (shown.status, acked.status) == (404, 400)
    assert max(len(shown.body), len(acked.body)) < 400
