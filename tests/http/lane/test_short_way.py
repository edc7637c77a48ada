"""The short way of plain submits, leases and acks has the same answers and effects as Falcon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest

from fastq._core import ALL
from fastq.clock import Clock
from fastq.services.keys import Grants
from tests.http.lane.fuzz import Still
from tests.http.wire import Reply, Wire, request_bytes
from tests.http.world import Hands, World, running

LONG_WAY = ("X-Odd", "1")  # a header that the lane does not know


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running() as one:
        yield one


def taken(world: World) -> int:
    """How many requests went the short way."""
    return sum(one._answers.taken for one in world.server.server_state.connections)


async def ask(wire: Wire, world: World, who: str, path: str, body: bytes, *headers: tuple[str, str]) -> Reply:
    await wire.send(request_bytes("POST", path, (world.bearer(who), *headers), body))
    return await wire.reply()


async def warm(wire: Wire, world: World, who: str, path: str, body: bytes) -> None:
    """Have what a request of this length begins with remembered."""
    await ask(wire, world, who, path, b" " * len(body), LONG_WAY)  # the key
    await ask(wire, world, who, path, b" " * len(body))  # the head


# --- bodies -----------------------------------------------------------------------------------------------------------

VALUES = [
    b"1", b"-0", b"01", b"1.5e3", b"1e400", b"1e99", b"-1.0E-7", b"9" * 120, b"1.", b".5", b"+1", b"-", b"1e", b"0x1",
    b"true", b"false", b"null", b"tru", b"nulll", b'""', b'"a"', b'"\\n\\u00e9"', b'"\\ud83d\\ude00"', b'"\\ud83d"',
    b'"\\ude00"', b'"\\x"', b'"\\u12g4"', "\"\u00e9\U0001f600\"".encode(), b'"\xff"', b'"\xc3"', b'"a\tb"', b'"a',
    b"[]", b"{}", b"[1, 2 ,3]", b"[1,]", b"[,1]", b"[1", b'{"a":1,"a":[{}]}', b'{"a"}', b'{"a":}', b"{1:2}",
    b'{"a":1,}',
    b"[" * 62 + b"]" * 62, b"[" * 63 + b"]" * 63, b"[" * 64 + b"]" * 64, b'{"a":' * 62 + b"1" + b"}" * 62,
    b'"mail"', b'"a b"', b'"' + b"q" * 64 + b'"', b'"' + b"q" * 65 + b'"', b'"ok"', b'"\\u006fk"', b"1000", b"1001",
    b"2147483647", b"2147483648", b"-2147483648", b"-2147483649", b"5.0", b"315619200000", b"315619200001",
]  # fmt: skip
SPACES = [b"", b"", b"", b"", b" ", b"\r\n\t", b"\x0b", b"\xc2\xa0"]
AROUND = [b"", b"", b"", b"", b"x", b",", b"}", b"\x00"]


def body_of(rng: Random, names: list[bytes], given: dict[bytes, bytes]) -> bytes:
    """An object with some of these members, mostly well-formed, in any order."""
    chosen = list(given.items()) if rng.random() < 0.9 else []
    chosen += [(rng.choice(names), rng.choice(VALUES)) for _ in range(rng.choice([0, 0, 1, 1, 2, 3]))]
    rng.shuffle(chosen)
    space = lambda: rng.choice(SPACES) if rng.random() < 0.2 else b""  # noqa: E731
    members = [space() + b'"' + name + b'"' + space() + b":" + space() + value + space() for name, value in chosen]
    body = space() + b"{" + b",".join(members) + b"}" + space()
    return body + rng.choice(AROUND) if rng.random() < 0.2 else body


def job_as_stored(world: World, job_id: str) -> tuple[Any, ...]:
    job = world.core.job(world.engine.now_us(), ALL, job_id)
    record = world.log.tail.cached(job.place)
    assert record is not None
    delay_us = job.run_at_us - job.created_us
    state = "waiting" if job.state in ("READY", "SCHEDULED") else job.state  # a short delay may be over by now
    head = (state, job.queue, job.group, job.owner_id, job.priority, job.max_retries, delay_us)
    return (*head, record[record.index(b"client-owner") :])


@pytest.mark.parametrize("seed", range(4))
async def test_submits(world: World, seed: int) -> None:
    rng = Random(seed)
    short, long = await world.connect(), await world.connect()
    names = [b"payload", b"queue", b"priority", b"max_retries", b"delay_ms", b"group", b"nope", b"pay\\u006coad"]
    went_short = 0
    for _ in range(400):
        body = body_of(rng, names, {b"payload": rng.choice(VALUES)})
        await warm(short, world, "client", "/jobs", body)
        before = taken(world)
        by_short = await ask(short, world, "client", "/jobs", body)
        went_short += taken(world) - before
        by_long = await ask(long, world, "client", "/jobs", body, LONG_WAY)
        assert by_short.status == by_long.status, (body, by_short.body, by_long.body)
        assert set(by_short.headers) == set(by_long.headers)
        if by_short.status == 201:
            assert job_as_stored(world, by_short.json["job_id"]) == job_as_stored(world, by_long.json["job_id"]), body
        else:
            assert by_short.json == by_long.json, body
    assert went_short > 25


@pytest.mark.parametrize("seed", range(4))
async def test_batches(world: World, seed: int) -> None:
    rng = Random(seed)
    short, long = await world.connect(), await world.connect()
    names = [b"queue", b"priority", b"delay_ms", b"group"]
    went_short = 0
    for _ in range(150):
        count = rng.choice([0, 1, 1, 2, 3, 50])
        odd = rng.choice(VALUES) if rng.random() < 0.3 else b"1"
        plain = [b'{"payload":1}'] * count
        jobs = [job if rng.random() < 0.8 else body_of(rng, names, {b"payload": odd}) for job in plain]
        body = b'{"jobs":[' + rng.choice([b",", b" , "]).join(jobs) + b"]}" + rng.choice(AROUND)
        if rng.random() < 0.2:
            body = body.replace(b'"jobs"', rng.choice([b' "jobs" ', b'"job"', b'"jobs":[],"jobs"']))
        await warm(short, world, "client", "/jobs/batch", body)
        before = taken(world)
        by_short = await ask(short, world, "client", "/jobs/batch", body)
        went_short += taken(world) - before
        by_long = await ask(long, world, "client", "/jobs/batch", body, LONG_WAY)
        assert by_short.status == by_long.status, (body, by_short.body, by_long.body)
        if by_short.status == 201:
            stored = [[job_as_stored(world, one) for one in reply.json["job_ids"]] for reply in (by_short, by_long)]
            assert stored[0] == stored[1], body
            assert len(stored[0]) == count
        else:
            assert by_short.json == by_long.json, body
    assert went_short > 25


CUT = [
    b'{"jobs":[{"payload":1},', b'{"jobs":[{"payload":1}, ', b'{"jobs":[{"payload":1}', b'{"jobs":[{"payload":1}]',
    b'{"jobs":[{"payload":1},]}', b'{"jobs":[', b'{"jobs":', b'{"jobs":[{"payload":1}]}}',
]  # fmt: skip


@pytest.mark.parametrize("body", CUT)
async def test_a_cut_batch_stores_nothing(world: World, body: bytes) -> None:
    short, long = await world.connect(), await world.connect()
    await warm(short, world, "client", "/jobs/batch", body)
    jobs = world.core.counts()["jobs"]
    by_short = await ask(short, world, "client", "/jobs/batch", body)
    by_long = await ask(long, world, "client", "/jobs/batch", body, LONG_WAY)
    assert (by_short.status, by_short.body) == (by_long.status, by_long.body)
    assert by_short.status == 400
    assert world.core.counts()["jobs"] == jobs


@pytest.mark.parametrize("seed", range(4))
async def test_acks(world: World, seed: int) -> None:
    rng = Random(seed)
    short, long = await world.connect(), await world.connect()
    names = [b"result", b"outcome", b"result_error", b"lease_token", b"nope"]
    went_short = 0
    for _ in range(200):
        ends = []
        body = body_of(rng, names, {b"lease_token": b'"TTTTTTTTTTTTTTTTTTTTTTTT"', b"result": rng.choice(VALUES)})
        if rng.random() < 0.05:
            body = b""
        for wire, headers in ((short, ()), (long, (LONG_WAY,))):
            job_id = await world.submit()
            lease = await world.lease({} if body else None)
            assert lease["job_id"] == job_id
            path, token = f"/jobs/{job_id}/ack", lease["lease_token"].encode()
            if not headers:
                await warm(short, world, "worker", "/jobs/lease", body)
            before = taken(world)
            reply = await ask(wire, world, "worker", path, body.replace(b"T" * 24, token), *headers)
            went_short += taken(world) - before
            shown = await world.show(job_id)
            said = (reply.body.replace(job_id.encode(), b"JOB"), shown["state"], shown.get("result"))
            ends.append((reply.status, set(reply.headers), said))
            if shown["state"] == "RUNNING":
                again = await ask(long, world, "worker", path, b'{"lease_token":"%s"}' % token, LONG_WAY)
                assert again.status == 200 if body else 400
        assert ends[0] == ends[1], body
    assert went_short > 15


@pytest.mark.parametrize("seed", range(3))
async def test_extensions(seed: int) -> None:
    """With a clock that stands still the same lease gets the same deadline both ways."""
    async with running(hands=Still()) as world:
        await extend_both_ways(world, seed)


async def extend_both_ways(world: World, seed: int) -> None:
    rng = Random(seed)
    short, long = await world.connect(), await world.connect()
    job_id = await world.submit()
    lease = await world.lease({})
    held = b'{"job_id":"%s","lease_token":"%s"}' % (job_id.encode(), lease["lease_token"].encode())
    lost = b'{"lease_token":"lost", "job_id":"%s"}' % job_id.encode()
    went_short = 0
    for turn in range(150):
        leases = b" , ".join(rng.choices([held, lost, b"{}", b"1"], [10, 3, 1, 1])[0] for _ in range(rng.randint(0, 3)))
        lease_ms = b"%d" % (60_000 + 1000 * turn)
        beat = {b"worker_id": rng.choice([b'"w"', b'"w"', b'""', b"1"]), b"leases": b"[%s]" % leases}
        path, given = rng.choice([
            ("/workers/heartbeat", beat),
            (f"/jobs/{job_id}/extend", {b"lease_token": b'"%s"' % rng.choice([lease["lease_token"], "lost"]).encode()}),
        ])  # fmt: skip
        given = given | {b"lease_ms": lease_ms} if turn % 4 else given
        body = b"{" + b", ".join(b'"%s":%s' % member for member in given.items()) + b"}"
        if turn % 3 == 0:
            body = body_of(rng, [b"nope", b"lease_ms"], given)
        await warm(short, world, "worker", "/jobs/lease", body)
        before = taken(world)
        by_short = await ask(short, world, "worker", path, body)
        went_short += taken(world) - before
        by_long = await ask(long, world, "worker", path, body, LONG_WAY)
        assert (by_short.status, by_short.body) == (by_long.status, by_long.body), body
        assert set(by_short.headers) == set(by_long.headers)
    assert went_short > 25
    assert "w" in world.engine.last_seen.since(0)


# --- leases -----------------------------------------------------------------------------------------------------------

AS_STORED = ({}, {"queue": "mail", "priority": -7, "max_retries": 0}, {"group": "g"}, {"tags": ["a", "b"]})


@pytest.mark.parametrize("fields", AS_STORED)
@pytest.mark.parametrize("body", [b'{"queues":["mail","default"]}', b'{"queues":["default","mail"],"max":3}', b""])
async def test_leases(world: World, fields: dict[str, Any], body: bytes) -> None:
    queue = fields.get("queue", "default")
    if not body and queue != "default":
        return
    wire = await world.connect()
    await warm(wire, world, "worker", "/jobs/lease", body)
    for payload in ("text", 'quo"te', {"a": [1, None, "é"]}, 5):
        job_id = await world.submit(payload, **fields)
        answers = []
        for headers in ((), (LONG_WAY,)):
            answer = (await ask(wire, world, "worker", "/jobs/lease", body, *headers)).json
            lease = answer["jobs"][0] if "jobs" in answer else answer
            assert lease["job_id"] == job_id
            path, token = f"/jobs/{job_id}/ack", lease.pop("lease_token").encode()
            until = datetime.fromisoformat(lease.pop("lease_until"))
            assert 25 < (until - datetime.fromisoformat(lease["created_at"])).total_seconds() < 60
            back = await ask(wire, world, "worker", path, b'{"lease_token":"%s","outcome":"release"}' % token)
            assert back.status == 200
            answers.append(answer)
        assert answers[0] == answers[1]
        assert (await world.call("client", "DELETE", f"/jobs/{job_id}")).status == 200


async def test_an_empty_lease_has_the_same_answer_both_ways(world: World) -> None:
    wire = await world.connect()
    for body in (b"", b"{}", b'{"max":5}'):
        await warm(wire, world, "worker", "/jobs/lease", body)
        before = taken(world)
        by_short = await ask(wire, world, "worker", "/jobs/lease", body)
        assert taken(world) == before + 1
        by_long = await ask(wire, world, "worker", "/jobs/lease", body, LONG_WAY)
        assert (by_short.status, by_short.body) == (by_long.status, by_long.body)


SECOND_US = 1_000_000
MOMENTS = [
    datetime(2000, 2, 29, 23, 59, 59), datetime(2024, 12, 31, 23, 59, 59, 999999), datetime(2025, 1, 1),
    datetime(2100, 2, 28, 12), datetime(2100, 3, 1, 0, 0, 0, 1), datetime(1999, 12, 31), datetime(2400, 2, 29, 1, 2, 3),
]  # fmt: skip


@pytest.mark.parametrize("moment", MOMENTS)
async def test_times_are_written_the_same(moment: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    us = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)

    class Still(Hands):
        def clock(self) -> Clock:
            return Clock(us, lambda: 0, lambda: us)

    monkeypatch.setattr("tests.http.world.Hands", Still)
    async with running() as world:
        wire = await world.connect()
        await warm(wire, world, "worker", "/jobs/lease", b"{}")
        await world.submit()
        before = taken(world)
        lease = (await ask(wire, world, "worker", "/jobs/lease", b"{}")).json
        assert taken(world) == before + 1
        written = moment.isoformat() + "Z"
        assert lease["created_at"] == written
        assert (await world.show(lease["job_id"]))["created_at"] == written
        until = datetime.fromisoformat(lease["lease_until"]).replace(tzinfo=None)
        assert (until - moment).total_seconds() == 30


# --- keys -------------------------------------------------------------------------------------------------------------


async def submit_short(wire: Wire, world: World, who: str) -> Reply:
    return await ask(wire, world, who, "/jobs", b'{"payload":1}')


async def test_a_revocation_takes_effect_with_the_next_request(world: World) -> None:
    wire = await world.connect()
    await warm(wire, world, "stranger", "/jobs", b'{"payload":1}')
    before = taken(world)
    assert (await submit_short(wire, world, "stranger")).status == 201
    assert taken(world) == before + 1
    assert (await world.call("admin", "DELETE", f"/keys/{world.key_ids['stranger']}")).status == 200
    assert (await submit_short(wire, world, "stranger")).status == 401


async def test_a_scope_is_asked_for_each_time(world: World) -> None:
    """The lines behind the first one are the same for a submit and an empty lease of the same length."""
    wire = await world.connect()
    await warm(wire, world, "client", "/jobs", b'{"payload":1}')
    assert (await submit_short(wire, world, "client")).status == 201
    assert (await ask(wire, world, "client", "/jobs/lease", b'{"lease":1}  ')).status == 403
    await warm(wire, world, "worker", "/jobs/lease", b'{"payload":1}')
    assert (await submit_short(wire, world, "worker")).status == 403


async def test_an_expired_key_is_not_admitted(world: World) -> None:
    expires_us = world.engine.now_us() + 60 * SECOND_US
    await world.make_key("brief", "client", grants=Grants(expires_us=expires_us))
    wire = await world.connect()
    await warm(wire, world, "brief", "/jobs", b'{"payload":1}')
    assert (await submit_short(wire, world, "brief")).status == 201
    world.hands.ahead_us += 61 * SECOND_US
    assert (await submit_short(wire, world, "brief")).status == 401


@pytest.mark.parametrize("in_pieces", [False, True])
async def test_a_request_is_charged_once(world: World, in_pieces: bool) -> None:
    limit = 50
    await world.make_key("slow", "client", grants=Grants(rate_limit=limit))
    wire = await world.connect()
    request = request_bytes("POST", "/jobs", (world.bearer("slow"),), b'{"payload":1}')
    statuses = []
    for _ in range(limit):
        if in_pieces:
            await wire.send(request[:-5])
            await asyncio.sleep(0.001)  # else the pieces may be joined on their way
            await wire.send(request[-5:])
        else:
            await wire.send(request)
        statuses.append((await wire.reply()).status)
    assert statuses == [201] * limit
    if not in_pieces:
        assert taken(world) > limit - 5
        for _ in range(limit):
            statuses.append((await submit_short(wire, world, "slow")).status)
        assert 429 in statuses


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_answers_come_in_the_order_of_their_requests(world: World, seed: int) -> None:
    """Short ways, long ways, refusals and waits, pipelined; some cut anywhere."""
    rng = Random(seed)
    wire = await world.connect()
    await warm(wire, world, "client", "/jobs", b'{"payload":1}')
    await warm(wire, world, "worker", "/jobs/lease", b'{"queues":["empty"]}')
    kinds = {
        "submit": (("POST", "/jobs", "client", b'{"payload":1}'), 201),
        "refused": (("POST", "/jobs", "client", b'{"payload":}'), 400),
        "empty": (("POST", "/jobs/lease", "worker", b'{"queues":["empty"]}'), 404),
        "wait": (("POST", "/jobs/lease", "worker", b'{"queues":["empty"],"wait_ms":1}'), 404),
        "list": (("GET", "/jobs?limit=1", "client", None), 200),
        "ack": (("POST", "/jobs/00000000-0000-7000-8000-000000000000/ack", "worker", b"{}"), 400),
    }
    for _ in range(60):
        chosen = [rng.choice(list(kinds)) for _ in range(rng.randint(1, 12))]
        stream = b""
        for kind in chosen:
            method, path, who, body = kinds[kind][0]
            stream += request_bytes(method, path, (world.bearer(who),), body)
        cut = rng.randint(1, len(stream) - 1) if rng.random() < 0.5 else len(stream)
        await wire.send(stream[:cut])
        await asyncio.sleep(0.001)
        await wire.send(stream[cut:])
        assert [(await wire.reply()).status for _ in chosen] == [kinds[kind][1] for kind in chosen]
    assert taken(world) > 20


async def test_requests_above_the_pipelines_limit_wait(world: World) -> None:
    wire = await world.connect()
    await warm(wire, world, "client", "/jobs", b'{"payload":1}')
    world.log.hold()
    request = request_bytes("POST", "/jobs", (world.bearer("client"),), b'{"payload":1}')
    await wire.send(request * 500)
    async with asyncio.timeout(5):
        while world.core.counts()["jobs"] < 64:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    assert world.core.counts()["jobs"] <= 65
    world.log.release()
    assert [(await wire.reply()).status for _ in range(500)] == [201] * 500


# --- what clients send most -------------------------------------------------------------------------------------------


async def test_the_requests_of_the_sdk_take_the_short_way(world: World) -> None:
    """Keyed submits, leases by request_id, acks together: each with values that no request had before."""
    wire = await world.connect()
    for turn in range(5):
        before = taken(world)
        key = ("Idempotency-Key", f"key-{turn}")
        submitted = await ask(wire, world, "client", "/jobs", b'{"payload":1,"tags":["a"],"group":"g"}', key)
        again = await ask(wire, world, "client", "/jobs", b'{"payload":1,"tags":["a"],"group":"g"}', key)
        assert (submitted.status, again.status) == (201, 200)
        assert again.body == submitted.body
        wanted = b'{"queues":["default"],"max":3,"request_id":"request-%d"}' % turn
        (lease,) = (await ask(wire, world, "worker", "/jobs/lease", wanted)).json["jobs"]
        ack = b'{"job_id":"%s","lease_token":"%s"}' % (lease["job_id"].encode(), lease["lease_token"].encode())
        beat = await ask(wire, world, "worker", "/workers/heartbeat", b'{"worker_id":"w","leases":[%s]}' % ack)
        assert [one["cancel_requested"] for one in beat.json["leases"]] == [False]
        longer = b'{"lease_token":"%s","lease_ms":90000}' % lease["lease_token"].encode()
        extended = await ask(wire, world, "worker", f"/jobs/{lease['job_id']}/extend", longer)
        assert extended.json["lease_until"] > beat.json["leases"][0]["lease_until"]
        lost = b'{"job_id":"%s","lease_token":"lost"}' % lease["job_id"].encode()
        acked = await ask(wire, world, "worker", "/jobs/ack", b'{"acks":[%s, %s]}' % (ack, lost))
        assert [one.get("code", "ok") for one in acked.json["results"]] == ["ok", "lease_lost"]
    assert taken(world) == before + 6


async def test_an_idempotency_key_works_on_both_ways(world: World) -> None:
    wire = await world.connect()
    body = b'{"backoff":{"factor":3},"tags":[ "a","b c" ],"payload": {"n" : 1.50},"delay_ms":0,"lease_ms":5000}'
    for first, second in (((), (LONG_WAY,)), ((LONG_WAY,), ())):
        key = ("Idempotency-Key", f"key-{first}")
        await warm(wire, world, "client", "/jobs", body)
        stored = await ask(wire, world, "client", "/jobs", body, key, *first)
        again = await ask(wire, world, "client", "/jobs", body, key, *second)
        other = await ask(wire, world, "client", "/jobs", body.replace(b"5000", b"6000"), key, *second)
        assert (stored.status, again.status, other.status) == (201, 200, 422)
        assert again.body == stored.body
