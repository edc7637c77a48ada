"""A differential fuzzer of the two ways: one server with the lane, one without, and the same requests to both.

    python -m tests.http.lane.fuzz [--requests N] [--seed N]        (`./dev fuzz lane`)

Both have the same keys, the same database id and a clock that only the fuzzer moves, so equal states give equal bytes:
ids, tokens and times too. Every answer is compared, and now and then the hash of the whole state.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from unittest.mock import patch

import orjson

from fastq.clock import Clock
from tests.http.wire import Reply, Wire
from tests.http.world import Hands, World, running

START_US = 1_767_225_600_000_000
LONG_REQUESTS = 200_000
COMPARED_EVERY = 50  # requests, the states
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OWN = ("date", "x-request-id")  # headers in which the two servers differ

VALUES = [
    b"1", b"-0", b"01", b"1.5e3", b"1e400", b"1e99", b"true", b"null", b'""', b'"a"', b'"\\n\\u00e9"', b'"\\ud83d"',
    "\"\u00e9\U0001f600\"".encode(), b'"\xff"', b'"a\tb"', b"[]", b"{}", b"[1, 2 ,3]", b'{"a":1,"a":[{}]}', b'"x\\"y"',
    b"[" * 63 + b"]" * 63, b'"' + b"q" * 300 + b'"', b'{"mail": "ann@example.org",\n "n": [1, null, "\\\\"]}',
]  # fmt: skip
FIELDS: dict[bytes, list[bytes]] = {
    b"queue": [b'"default"', b'"mail"', b'"a.b-c_d"', b'"a b"', b'""', b"null"],
    b"priority": [b"0", b"5", b"-7", b"2147483648", b"1.0"],
    b"max_retries": [b"0", b"3", b"1000", b"1001"],
    b"delay_ms": [b"0", b"1", b"5000", b"315619200001"],
    b"run_at": [b'"2026-01-01T00:00:05Z"', b'"2026-01-01T01:00:00.1234567+01:00"', b'"2026-02-29T00:00:00Z"',
                b'"2024-02-29t00:00:00z"', b'"2050-01-01T00:00:00Z"', b'"1969-12-31T23:59:59Z"', b'"2026-01-01"',
                b'"2026-06-30T23:59:60Z"', b'"2026-01-01T24:00:00Z"', b'"2026-01-01T00:00:00.Z"'],
    b"group": [b'"g1"', b'"g2"', b'"g 3"'],
    b"lease_ms": [b"1000", b"60000", b"999", b"43200001"],
    b"backoff": [b"{}", b'{"base_ms":5}', b'{"factor":1.50, "cap_ms":9}', b'{"base_ms":50,"factor":3,"cap_ms":60000}',
                 b'{"factor":1.1234567}', b'{"factor":2e0}', b'{"base_ms":10,"cap_ms":5}', b'{"factor":100.000001}'],
    b"expires_ms": [b"1", b"60000", b"0"],
    b"expires_at": [b'"2026-01-02T00:00:00Z"', b'"2020-01-01T00:00:00Z"'],
    b"unique_key": [b'"u1"', b'"u2"', b'"u 3"', '"u\u00e9"'.encode(), b'""', b'"a\\nb"'],
    b"on_duplicate": [b'"keep"', b'"replace"', b'"other"'],
    b"tags": [b'["a"]', b'["a", "b c"]', b'["a","a"]', b'["q\\"q"]', b"[]", '["\u00e9"]'.encode(), b'["a",]'],
    b"idempotency_key": [b'"k1"', b'"k2"', b'"k3"', b'"k\\u0031"', b'""'],
    b"traceparent": [b'"%s"' % TRACE.encode(), b'"00-1"', b"1"],
}  # fmt: skip
COMMON = {b"queue": b'"mail"', b"priority": b"3", b"max_retries": b"2", b"lease_ms": b"20000"}
KEYS = ["k1", "k2", "k3", "k4", "k5", "fresh", "fresh", "fresh"]
ODD_KEYS = ["", "two words", "caf\u00e9", "k" * 200, "k" * 201, "end ", "\ttab"]
LEASES = [
    b"", b"{}", b'{"max":3}', b'{"queues":["mail","default"]}', b'{"queues":{"mail":2,"default":1},"max":5}',
    b'{"queues":["default"],"max":2,"request_id":"r%d"}', b'{ "request_id" : "r%d" , "worker_id":"w1"}',
    b'{"request_id":"a\\u0041"}', b'{"lease_ms":5000}', b'{"lease_ms":1}', b'{"wait_ms":1,"queues":["none"]}',
    b'{"queues":[]}', b'{"max":0}', b'{"request_id":"r1","request_id":"r2"}', b'{"worker_id":"w\xc3\xa9"}', b'{"max":',
]  # fmt: skip
DURATIONS = [b"1000", b"60000", b"90000", b"999", b"43200000", b"43200001", b"null", b"2e3", b'"5000"']
WORKERS = [
    b'"w1"',
    b'"w1"',
    b'"w2"',
    b'""',
    b'"w\xc3\xa9"',
    b'"\\u0077"',
    b'"a\\tb"',
    b'"' + b"w" * 201 + b'"',
    b"null",
]
STYLES = [  # what header lines a client sends, `%s` stands for the lines that change
    "%sHost: test\r\nAuthorization: Bearer {secret}\r\nUser-Agent: fuzz\r\nContent-Type: application/json\r\n",
    "Host: test\r\nUser-Agent: curl/8\r\nAccept: */*\r\nAuthorization: Bearer {secret}\r\n%s",
    "host: test\r\n%sauthorization: Bearer {secret}\r\nconnection: keep-alive\r\n",
    "Host: test\r\nX-Odd: 1\r\n%sAuthorization: Bearer {secret}\r\n",
]


class Still(Hands):
    """A clock that stands still until the fuzzer moves it."""

    def clock(self) -> Clock:
        return Clock(START_US, lambda: self.ahead_us, lambda: START_US + self.ahead_us)


class SeededSecrets:
    """In place of `secrets`: both servers draw the same."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def token_urlsafe(self, n: int) -> str:
        return self._rng.randbytes(n).hex()

    def token_hex(self, n: int) -> str:
        return self._rng.randbytes(n).hex()


class Requests:
    """Draws requests; learns from the answers which leases there are."""

    def __init__(self, rng: random.Random, secrets: dict[str, str]) -> None:
        self._rng, self._secrets = rng, secrets
        self._held: list[tuple[str, str]] = []
        self._bodies: dict[tuple[str, str], bytes] = {}  # of (path, idempotency key)

    def draw(self) -> bytes:
        kinds = {"submit": 40, "batch": 15, "lease": 25, "ack": 15, "acks": 5, "extend": 5, "heartbeat": 10}
        kind = self._rng.choices(list(kinds), list(kinds.values()))[0]
        if kind == "submit":
            return self._request("client", "/jobs", self._mutated(self._job()))
        if kind == "batch":
            jobs = [self._job() if self._rng.random() < 0.3 else b'{"payload":1}' for _ in range(self._rng.choice(
                [0, 1, 1, 2, 3, 20]))]  # fmt: skip
            body = b'{"jobs":[' + self._rng.choice([b",", b" , "]).join(jobs) + b"]}"
            return self._request("client", "/jobs/batch", self._mutated(body))
        if kind == "lease":
            body = self._rng.choice(LEASES)
            body = body % self._rng.randrange(4) if b"%d" in body else body
            return self._request("worker", "/jobs/lease", self._mutated(body) if body else body)
        if kind == "extend":
            return self._extend()
        if kind == "heartbeat":
            return self._request("worker", "/workers/heartbeat", self._mutated(self._heartbeat()))
        acks = [self._ack() for _ in range(self._rng.choice([1, 1, 2, 5]) if kind == "acks" else 1)]
        if kind == "ack":
            ((job_id, members),) = acks
            return self._request("worker", f"/jobs/{job_id}/ack", self._mutated(b"{" + members + b"}"))
        bodies = [b'{"job_id":"%s"%s}' % (one.encode(), b"," + more if more else b"") for one, more in acks]
        return self._request("worker", "/jobs/ack", self._mutated(b'{"acks":[' + b",".join(bodies) + b"]}"))

    def learn(self, reply: Reply) -> None:
        if reply.status == 200 and b'"lease_token"' in reply.body:
            answer = orjson.loads(reply.body)
            leases = answer.get("jobs", [answer])
            self._held = [*self._held, *((lease["job_id"], lease["lease_token"]) for lease in leases)][-50:]

    def _job(self) -> bytes:
        rng = self._rng
        members = {b"payload": rng.choice(VALUES) if rng.random() < 0.2 else b'{"n": 1}'}
        for name in rng.sample(list(COMMON), rng.choice([0, 0, 1, 2])):
            members[name] = COMMON[name]
        for name in rng.sample(list(FIELDS), rng.choice([0, 0, 0, 1, 1, 2, 4])):
            members[name] = rng.choice(FIELDS[name][:2] * 5 + FIELDS[name])
        shown = [b'"%s"%s%s' % (name, rng.choice([b":", b":", b" : "]), value) for name, value in members.items()]
        if rng.random() < 0.3:
            rng.shuffle(shown)
        return b"{" + rng.choice([b",", b",", b" ,\n"]).join(shown) + b"}"

    def _ack(self) -> tuple[str, bytes]:
        rng = self._rng
        job_id, token = rng.choice(self._held or [("0" * 36, "x")])
        members = [b'"lease_token":"%s"' % token.encode()] if rng.random() < 0.95 else []
        if rng.random() < 0.5:
            members.append(b'"result":' + rng.choice(VALUES[:1] * 10 + VALUES))
        if rng.random() < 0.3:
            members.append(b'"outcome":' + rng.choice([b'"ok"', b'"error"', b'"release"', b"null"]))
        return job_id, b",".join(members)

    def _extend(self) -> bytes:
        rng = self._rng
        job_id, token = rng.choice(self._held or [("0" * 36, "x")])
        members = [b'"lease_token":"%s"' % token.encode()] if rng.random() < 0.95 else []
        if rng.random() < 0.6:
            members.append(b'"lease_ms":' + rng.choice(DURATIONS))
        return self._request("worker", f"/jobs/{job_id}/extend", self._mutated(b"{" + b", ".join(members) + b"}"))

    def _heartbeat(self) -> bytes:
        rng = self._rng
        members = [b'"worker_id":' + rng.choice(WORKERS)] if rng.random() < 0.95 else []
        if rng.random() < 0.9:
            held = rng.sample(self._held, min(len(self._held), rng.choice([0, 1, 1, 2, 5])))
            held += rng.choice([[], [], [], [("0" * 36, "x")], [("no id", "x")], held[:1]])
            shown = [[b'"job_id":"%s"' % one.encode(), b'"lease_token":"%s"' % token.encode()] for one, token in held]
            if shown and rng.random() < 0.1:
                shown[0].append(rng.choice([b'"lease_ms":2000', b'"more":1', *shown[0]]))
            leases = [b"{" + rng.choice([b",", b" , "]).join(one[:: rng.choice([1, -1])]) + b"}" for one in shown]
            members.append(b'"leases": [' + rng.choice([b",", b" , "]).join(leases) + b"]")
        if rng.random() < 0.4:
            members.append(b'"lease_ms":' + rng.choice(DURATIONS))
        if rng.random() < 0.3:
            rng.shuffle(members)
        return b"{" + b",".join(members) + b"}"

    def _mutated(self, body: bytes) -> bytes:
        rng = self._rng
        if rng.random() < 0.9 or not body:
            return body
        at, to = sorted(rng.randrange(len(body) + 1) for _ in range(2))
        how = rng.randrange(5)
        if how == 0:
            return body[:at]
        if how == 1:
            return body[:at] + rng.choice([b",", b"}", b"]", b'"', b" ", b"\\", b"\x00", b"0", b"{"]) + body[at:]
        if how == 2:
            return body[:at] + body[to:]
        if how == 3:
            return body[:to] + body[at:to] + body[to:]
        return body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]

    def _request(self, who: str, path: str, body: bytes) -> bytes:
        rng = self._rng
        style = rng.choices(STYLES, [8, 4, 4, 1])[0]
        lines = []
        if rng.random() < 0.4:
            key = rng.choice(KEYS)
            if key == "fresh":
                key = rng.randbytes(8).hex()
            elif rng.random() < 0.1:
                key = rng.choice(ODD_KEYS)
            elif rng.random() < 0.7:  # again what it came with first
                body = self._bodies.setdefault((path, key), body)
            lines.append(f"Idempotency-Key: {key}\r\n")
        if rng.random() < 0.2:
            lines.append(f"traceparent: {TRACE if rng.random() < 0.8 else TRACE.upper()}\r\n")
        if body or rng.random() < 0.5:
            zeros = "0" if rng.random() < 0.02 else ""
            lines.append(f"Content-Length: {zeros}{len(body)}\r\n")
        if rng.random() < 0.01:
            lines.append(rng.choice(lines) if lines else "Accept: x\r\n")
        head = style.format(secret=self._secrets[who]) % "".join(lines)
        return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


@asynccontextmanager
async def pair(seed: int) -> AsyncIterator[tuple[World, World]]:
    """The lane's server, and the reference."""
    async with AsyncExitStack() as stack:
        worlds = []
        for lane in (True, False):
            with patch("fastq.services.keys.records.secrets", SeededSecrets(seed)):
                worlds.append(await stack.enter_async_context(running(lane=lane, hands=Still())))
        yield worlds[0], worlds[1]


async def fuzz(seed: int, count: int) -> tuple[int, int]:
    """Send `count` requests both ways: how many there were, and how many took the short way.

    Raises AssertionError for the first difference.
    """
    rng = random.Random(seed)
    async with pair(seed) as worlds:
        requests = Requests(rng, worlds[0].secrets)
        wires = [await world.connect() for world in worlds]
        taken = sent = compared = 0
        while sent < count:
            batch = [requests.draw() for _ in range(rng.choice([1, 1, 1, 1, 4]))]
            sent += len(batch)
            answers = [await _ask(wire, batch) for wire in wires]
            for request, by_lane, by_falcon in zip(batch, *answers, strict=False):
                assert _shown(by_lane) == _shown(by_falcon), f"seed {seed}: {request!r}\n{by_lane}\n{by_falcon}"
                requests.learn(by_falcon)
            assert len(answers[0]) == len(answers[1]), f"seed {seed}: {batch!r}\n{answers}"
            if any(reply.headers.get("connection") == "close" for reply in answers[0]):
                taken += _taken(worlds[0])
                for world, wire in zip(worlds, wires, strict=True):
                    await wire.close()
                    await _until_gone(world)
                wires = [await world.connect() for world in worlds]
            if rng.random() < 0.02:
                ahead_us = rng.randrange(1, 40_000_000)
                for world in worlds:
                    world.hands.ahead_us += ahead_us
                    world.engine.run_due()
            if sent - compared >= COMPARED_EVERY:
                compared = sent
                hashes = [world.core.state_hash() for world in worlds]
                assert hashes[0] == hashes[1], f"seed {seed}: the states differ within {COMPARED_EVERY} requests"
        return sent, taken + _taken(worlds[0])


def _taken(world: World) -> int:
    return sum(one._answers.taken for one in world.server.server_state.connections)


async def _until_gone(world: World) -> None:
    while world.server.server_state.connections:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0)


async def _ask(wire: Wire, batch: list[bytes]) -> list[Reply]:
    """The answers, up to one that closes the connection."""
    await wire.send(b"".join(batch))
    replies: list[Reply] = []
    for _ in batch:
        replies.append(await wire.reply())
        if replies[-1].headers.get("connection") == "close":
            break
    return replies


def _shown(reply: Reply) -> tuple[int, dict[str, str], bytes]:
    return reply.status, {name: value for name, value in reply.headers.items() if name not in OWN}, reply.body


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev fuzz lane", description="the lane against Falcon, byte by byte")
    parser.add_argument("--requests", type=int, default=LONG_REQUESTS)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    sent, taken = asyncio.run(fuzz(options.seed, options.requests))
    print(f"{sent} requests, {taken} of them the short way: no difference")


if __name__ == "__main__":
    main()
