"""Bad input: every field of every body, every limit from both sides. The answer is a 4xx that names the field."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastq.engine.commands import (
    ERROR_BYTES_KEPT,
    KEY_NAME_BYTES_MAX,
    LEASE_MS_MAX,
    LEASE_MS_MIN,
    MAX_RETRIES_MAX,
    OWNER_ID_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    PRIORITY_MAX,
    PRIORITY_MIN,
    RESULT_BYTES_MAX,
    RUN_AT_AHEAD_US_MAX,
    WORKER_ID_BYTES_MAX,
)
from fastq.errors import InvalidRequest
from fastq.http import fields
from fastq.http.resources import keys, lease, submit
from tests.http.world import World

BIG = 2**64
DELAY_MAX = RUN_AT_AHEAD_US_MAX // 1000
JOB: dict[str, Any] = {"payload": "p"}
KEY: dict[str, Any] = {"name": "n", "owner_id": "o", "type": "client"}
ROUTES = {"submit": ("client", "/jobs"), "lease": ("worker", "/jobs/lease"), "key": ("admin", "/admin/keys")}


async def post(world: World, route: str, body: Any) -> Any:
    if route == "ack":
        await world.submit()
        leased = await world.lease()
        return await world.call("worker", "POST", f"/jobs/{leased['job_id']}/ack", body)
    who, path = ROUTES[route]
    if route == "lease":
        await world.submit()
    return await world.call(who, "POST", path, body)


INTEGERS = {
    ("submit", "max_retries"): (0, MAX_RETRIES_MAX),
    ("submit", "priority"): (PRIORITY_MIN, PRIORITY_MAX),
    ("submit", "delay_ms"): (0, DELAY_MAX),
    ("lease", "lease_ms"): (LEASE_MS_MIN, LEASE_MS_MAX),
    ("ack", "retry_after_ms"): (0, DELAY_MAX),
}
STRINGS = {
    ("submit", "run_at"), ("lease", "worker_id"), ("ack", "result_error"), ("ack", "lease_token"), ("ack", "outcome"),
    ("key", "name"), ("key", "owner_id"), ("key", "type"),
}  # fmt: skip
REST: dict[str, dict[str, Any]] = {"submit": JOB, "lease": {}, "ack": {"result_error": "boom"}, "key": KEY}


NO_INTEGERS: list[Any] = ["3", 1.5, 1.0, True, [], {}]
NO_STRINGS: list[Any] = [5, 1.5, True, [], {}]


def wrong_types() -> list[Any]:
    integers = [(route, name, "an integer", value) for route, name in INTEGERS for value in NO_INTEGERS]
    strings = [(route, name, "a string", value) for route, name in sorted(STRINGS) for value in NO_STRINGS]
    return integers + strings


@pytest.mark.parametrize(("route", "name", "kind", "value"), wrong_types())
async def test_wrong_type(world: World, route: str, name: str, kind: str, value: Any) -> None:
    reply = await post(world, route, REST[route] | {name: value})
    assert (reply.status, reply.error) == (400, f"invalid JSON: {name} must be {kind}")


@pytest.mark.parametrize(("route", "name", "low", "high"), [(*key, *bounds) for key, bounds in INTEGERS.items()])
async def test_integers_at_and_past_their_limits(world: World, route: str, name: str, low: int, high: int) -> None:
    for value, message in (
        (low - 1, f"{name} must be >= {low}"),
        (-BIG, f"{name} must be >= {low}"),
        (high + 1, f"{name} must be <= {high}"),
        (BIG, f"{name} must be <= {high}"),
        (10**400, f"{name} must be <= {high}"),
    ):
        reply = await post(world, route, json.dumps(REST[route] | {name: value}).encode())
        assert reply.status == 400, value
        assert reply.error == message or (name == "priority" and reply.error.startswith(f"{name} must be"))
    for value in (low, high):
        assert (await post(world, route, REST[route] | {name: value})).status in (200, 201)


@pytest.mark.parametrize("route", ["submit", "lease", "ack", "key"])
@pytest.mark.parametrize("name", ["colour", "dealy_ms", "Payload", "é", "a`b\n", ""])
async def test_unknown_field(world: World, route: str, name: str) -> None:
    reply = await post(world, route, REST[route] | {name: 1})
    assert (reply.status, reply.error, reply.json["code"]) == (400, f"unknown field: {name}", "invalid_request")


async def test_a_long_unknown_field_is_not_repeated_whole(world: World) -> None:
    reply = await post(world, "submit", JOB | {"x" * 50_000: 1})
    assert reply.status == 400
    assert len(reply.body) < 400


@pytest.mark.parametrize("route", ["submit", "lease", "ack"])
async def test_null_is_the_same_as_left_out(world: World, route: str) -> None:
    names = [name for at, name in [*INTEGERS, *STRINGS] if at == route and name != "worker_id"]
    assert (await post(world, route, REST[route] | dict.fromkeys(names))).status in (200, 201)


NOT_JSON = {
    b"": "the body is empty",
    b" ": "input data was truncated",
    b"{": "input data was truncated",
    b"[]": "the body must be an object",
    b"5": "the body must be an object",
    b'"x"': "the body must be an object",
    b"{oops": "JSON is malformed",
    b"{'payload':1}": "JSON is malformed",
    b'{"payload":1}x': "JSON is malformed",
    b'{"payload":1,}': "JSON is malformed",
    b'{"payload":NaN}': "JSON is malformed",
    b'{"payload":Infinity}': "JSON is malformed",
    b'{"payload":01}': "JSON is malformed",
    b'{"payload":[1,]}': "JSON is malformed",
    b'{"payload":"a\x00b"}': "JSON is malformed",
    b'{"payload":"a\nb"}': "JSON is malformed",
    b'{"payload":"\\x41"}': "JSON is malformed",
    b'{"payload":"\xff"}': "not UTF-8 at byte 12",
    b'{"payload":"\xed\xa0\x80"}': "not UTF-8 at byte 12",  # a surrogate as bytes
    b'{"payload":"\xc0\xaf"}': "not UTF-8 at byte 12",  # an overlong slash
    b"\xef\xbb\xbf{}": "JSON is malformed",  # a byte order mark
    b'{"payload":"\\ud800"}': "a surrogate escape",
    b'{"payload":"\\udc00 x"}': "a surrogate escape",
    b'{"payload":"\\ud800\\u0041"}': "a surrogate escape",
    b'{"payload":{"\\ud83d":1}}': "a surrogate escape",
    b'{"payload":' + b"[" * 64 + b"]" * 64 + b"}": "nested deeper than 64",
    b'{"payload":' + b'{"a":' * 64 + b"1" + b"}" * 64 + b"}": "nested deeper than 64",
    b'{"payload":' + b"[" * 500_000: "nested deeper than 64",
}


@pytest.mark.parametrize(("body", "message"), NOT_JSON.items(), ids=lambda value: repr(value)[:40])
async def test_not_json(world: World, body: bytes, message: str) -> None:
    reply = await post(world, "submit", body)
    assert reply.status == 400
    assert reply.error.startswith(f"invalid JSON: {message}")
    assert (await world.call("worker", "POST", "/jobs/lease")).status == 404, "a job was made of it"


@pytest.mark.parametrize("body", [b"{oops", b"[]", b" ", b'{"result":}'])
async def test_an_ack_that_is_not_json_changes_nothing(world: World, body: bytes) -> None:
    job_id = await world.submit()
    await world.lease()
    reply = await world.call("worker", "POST", f"/jobs/{job_id}/ack", body)
    assert reply.status == 400
    assert reply.error.startswith("invalid JSON")
    assert (await world.show(job_id))["state"] == "RUNNING"


async def test_depth_at_its_limit(world: World) -> None:
    payload = b"[" * 63 + b"]" * 63
    assert (await post(world, "submit", b'{"payload":' + payload + b"}")).status == 201
    assert (await world.lease())["payload"] == payload.decode()


async def test_brackets_in_strings_are_no_depth(world: World) -> None:
    assert (await post(world, "submit", JOB | {"payload": '[{"\\' * 100})).status == 201


async def test_pairs_of_surrogates_are_kept(world: World) -> None:
    assert (await post(world, "submit", b'{"payload":"\\ud83d\\ude00\\\\ud800"}')).status == 201
    assert (await world.lease())["payload"] == "\U0001f600\\ud800"


async def test_the_last_of_two_fields_counts(world: World) -> None:
    assert (await post(world, "submit", b'{"payload":1,"priority":1,"payload":2,"priority":2}')).status == 201
    leased = await world.lease({})
    assert (leased["payload"], leased["priority"]) == (2, 2)


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["x", "é"])
async def test_payload_size(world: World, character: str) -> None:
    whole = character * ((PAYLOAD_BYTES_MAX - 2) // len(character.encode()))
    assert (await post(world, "submit", json.dumps({"payload": whole}, ensure_ascii=False).encode())).status == 201
    assert (await world.lease())["payload"] == whole
    reply = await post(world, "submit", json.dumps({"payload": whole + "x" * 8}, ensure_ascii=False).encode())
    assert (reply.status, reply.error) == (400, f"payload must be at most {PAYLOAD_BYTES_MAX} bytes")


async def test_result_size(world: World) -> None:
    whole = "x" * (RESULT_BYTES_MAX - 2)
    job_id = await world.submit()
    await world.lease()
    reply = await world.call("worker", "POST", f"/jobs/{job_id}/ack", {"result": whole + "x"})
    assert (reply.status, reply.error) == (400, f"result must be at most {RESULT_BYTES_MAX} bytes")
    assert (await world.call("worker", "POST", f"/jobs/{job_id}/ack", {"result": whole})).status == 200
    assert (await world.show(job_id))["result"] == whole


@pytest.mark.parametrize(
    ("route", "limit"),
    [
        ("submit", fields.BODY_BYTES_MAX),
        ("ack", fields.BODY_BYTES_MAX),
        ("lease", fields.SMALL_BODY_BYTES_MAX),
        ("key", fields.SMALL_BODY_BYTES_MAX),
    ],
)
async def test_body_size(world: World, route: str, limit: int) -> None:
    text = json.dumps(REST[route]).encode()
    assert (await post(world, route, text + b" " * (limit - len(text)))).status in (200, 201)
    reply = await post(world, route, text + b" " * (limit - len(text) + 1))
    assert (reply.status, reply.error) == (413, f"the body must be at most {limit} bytes")
    assert reply.json["code"] == "body_too_large"
    assert (await world.call(None, "GET", "/health")).status == 200, "the connection goes on"


TEXT_LIMITS = {
    ("lease", "worker_id"): WORKER_ID_BYTES_MAX,
    ("key", "name"): KEY_NAME_BYTES_MAX,
    ("key", "owner_id"): OWNER_ID_BYTES_MAX,
}


@pytest.mark.parametrize(("route", "name", "limit"), [(*key, limit) for key, limit in TEXT_LIMITS.items()])
async def test_texts_are_measured_in_bytes(world: World, route: str, name: str, limit: int) -> None:
    for whole in ("x" * limit, "é" * (limit // 2), "\U0001f600" * (limit // 4)):
        assert (await post(world, route, REST[route] | {name: whole})).status in (200, 201)
    for long in ("x" * (limit + 1), "é" * (limit // 2 + 1)):
        reply = await post(world, route, REST[route] | {name: long})
        assert (reply.status, reply.error) == (400, f"{name} must be at most {limit} bytes")


async def test_lease_token_length(world: World) -> None:
    reply = await post(world, "ack", {"lease_token": "x" * 201})
    assert (reply.status, reply.error) == (400, "lease_token must be of length <= 200")


async def test_a_long_error_is_cut(world: World) -> None:
    text = "é" * ERROR_BYTES_KEPT + "!"
    job_id = await world.submit(max_retries=1)
    await world.lease()
    assert (await world.call("worker", "POST", f"/jobs/{job_id}/ack", {"result_error": "a" + text})).status == 200
    assert (await world.show(job_id))["result_error"] == "a" + "é" * (ERROR_BYTES_KEPT // 2 - 1)


# --- what does not go together ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "fields", "message"),
    [
        ("submit", {"delay_ms": 1, "run_at": "2030-01-01T00:00:00Z"}, "run_at must be left out when delay_ms is given"),
        ("ack", {"outcome": "ok", "result_error": "boom"}, "result_error must be empty when outcome is ok"),
        ("ack", {"outcome": "maybe"}, "outcome must be ok, error, discard, snooze or release"),
        ("ack", {"outcome": ""}, "outcome must be ok, error, discard, snooze or release"),
        ("ack", {"retry_after_ms": 5, "result_error": ""}, "retry_after_ms must be left out unless the attempt failed"),
    ],
)
async def test_fields_that_contradict(world: World, route: str, fields: Any, message: str) -> None:
    reply = await post(world, route, REST[route] | fields)
    assert (reply.status, reply.error) == (400, message)


NO_TIMES = [
    "", "now", "2030-01-01", "2030-01-01T00:00Z", "2030-02-30T00:00:00Z", "2030-01-01T24:00:00Z",
    "2030-01-01T00:00:00+25:00", "2030-01-01T00:00:00 Z", "20300101T000000Z", "2030-W01-1T00:00:00Z", "1893456000",
    "0000-01-01T00:00:00Z", "2030-01-01T00:00:00.Z", "2030-01-01T00:00:00Z ", "٢٠30-01-01T00:00:00Z",
    "2030-01-01T00:00:61Z",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_TIMES)
async def test_run_at_that_is_not_a_time(world: World, text: str) -> None:
    reply = await post(world, "submit", JOB | {"run_at": text})
    assert (reply.status, reply.error) == (400, "run_at must be an RFC 3339 time")


async def test_a_run_at_without_a_time_zone(world: World) -> None:
    reply = await post(world, "submit", JOB | {"run_at": "2030-01-01T00:00:00"})
    needs = "it needs a time zone, such as Z or +02:00"
    assert (reply.status, reply.error) == (400, f"run_at must be an RFC 3339 time: {needs}")


TIMES = {
    "2030-01-01T00:00:00Z": 1_893_456_000_000_000,
    "2030-01-01t00:00:00z": 1_893_456_000_000_000,
    "2030-01-01 01:30:00+01:30": 1_893_456_000_000_000,
    "2029-12-31T23:59:60Z": 1_893_456_000_000_000,  # a leap second
    "2030-01-01T00:00:00.5Z": 1_893_456_000_500_000,
    "2030-01-01T00:00:00.0000019Z": 1_893_456_000_000_001,
    "1969-01-01T00:00:00Z": 0,
    "0001-01-01T00:00:00+23:59": 0,
}


@pytest.mark.parametrize(("text", "unix_us"), TIMES.items())
def test_run_at(text: str, unix_us: int) -> None:
    command = submit.submit_command(json.dumps(JOB | {"run_at": text}).encode(), 1_893_456_000_000_000)
    assert command.run_at_us == unix_us


def test_run_at_is_at_most_ten_years_ahead() -> None:
    body = json.dumps(JOB | {"run_at": "2030-01-01T00:00:00Z"}).encode()
    latest_us = 1_893_456_000_000_000 - RUN_AT_AHEAD_US_MAX
    assert submit.submit_command(body, latest_us).run_at_us == 1_893_456_000_000_000
    with pytest.raises(InvalidRequest, match="run_at must be at most 10 years ahead"):
        submit.submit_command(body, latest_us - 1)


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "", "nonsense"])
async def test_content_encoding(world: World, coding: str) -> None:
    headers = (("Content-Encoding", coding),)
    reply = await world.call("client", "POST", "/jobs", JOB, headers)
    assert (reply.status, reply.json["code"]) == (415, "unsupported_encoding")


async def test_content_encoding_identity(world: World) -> None:
    assert (await world.call("client", "POST", "/jobs", JOB, (("Content-Encoding", "Identity"),))).status == 201


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1"]
)
async def test_the_content_type_does_not_matter(world: World, kind: str) -> None:
    assert (await world.call("client", "POST", "/jobs", JOB, (("Content-Type", kind),))).status == 201


@given(st.binary(max_size=200))
def test_decoding_refuses_and_never_fails(data: bytes) -> None:
    decoders = (lambda body: submit.submit_command(body, 0), lease.lease_command, keys.rotate_key_fields)
    for decode in decoders:
        with contextlib.suppress(InvalidRequest):
            decode(data)
