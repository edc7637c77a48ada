"""Draws the requests of the lane's fuzzer: every operation of the short way, and a few others between them."""

from __future__ import annotations

import random

import orjson

from tests.http.lane import near_json, odd_heads
from tests.http.lane.odd_heads import TRACE

VALUES = [
    b"1", b"1.5e3", b"1e99", b"true", b'"a"', b'"\\n\\u00e9"', "\"\u00e9\U0001f600\"".encode(), b"[]", b"{}",
    b"[1, 2 ,3]",
    b'{"a":1,"a":[{}]}', b'"x\\"y"', b'"' + b"q" * 300 + b'"', b'{"mail": "ann@example.org",\n "n": [1, null, "\\\\"]}',
    b"-0",
]  # fmt: skip
FIELDS: dict[bytes, list[bytes]] = {  # good values first
    b"queue": [b'"default"', b'"mail"', b'"a.b-c_d"', b'"a b"', b'""', b"null"],
    b"priority": [b"0", b"5", b"-7", b"2147483648", b"1.0"],
    b"max_retries": [b"0", b"3", b"1000", b"1001"],
    b"delay_ms": [b"0", b"1", b"5000", b"315619200001"],
    b"run_at": [b'"2026-01-01T00:00:05Z"', b'"2026-01-01T01:00:00.1234567+01:00"', b'"2026-02-29T00:00:00Z"',
                b'"2024-02-29t00:00:00z"', b'"2050-01-01T00:00:00Z"', b'"1969-12-31T23:59:59Z"', b'"2026-01-01"',
                b'"2026-06-30T23:59:60Z"', b'"2026-01-01T24:00:00Z"', b'"2026-01-01T00:00:00.Z"'],
    b"group": [b'"g1"', b'"g2"', b'"g 3"'],
    b"lease_ms": [b"1000", b"60000", b"999", b"43200001"],
    b"backoff": [b'{"base_ms":5}', b'{"factor":1.50, "cap_ms":9000}', b'{"base_ms":50,"factor":3,"cap_ms":60000}',
                 b'{"factor":1.1234567}', b'{"factor":2e0}', b'{"base_ms":10,"cap_ms":5}', b'{"factor":100.000001}',
                 b"{}"],
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
    b'{"lease_ms":5000}',
]  # fmt: skip
ODD_LEASES = [
    b'{"request_id":"a\\u0041"}', b'{"lease_ms":1}', b'{"wait_ms":1,"queues":["none"]}', b'{"queues":[]}', b'{"max":0}',
    b'{"request_id":"r1","request_id":"r2"}', b'{"worker_id":"w\xc3\xa9"}', b'{"max":', b'{"max":1001}', b"null",
    b"[]", b"x",
]  # fmt: skip
DURATIONS = [b"1000", b"60000", b"90000", b"999", b"43200000", b"43200001", b"null", b"2e3", b'"5000"']
WORKERS = [
    b'"w1"',
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
KINDS = {"submit": 40, "batch": 15, "lease": 20, "ack": 15, "acks": 5, "extend": 6, "heartbeat": 8, "other": 3}
OTHERS = [  # (who, method, path, body): requests that change how those of the short way are answered
    ("admin", "PUT", "/queues/mail", b'{"max_depth":400}'), ("admin", "PUT", "/queues/mail", b"{}"),
    ("admin", "PUT", "/queues/default", b"{}"), ("admin", "PUT", "/queues/mail", b"{}"), ("admin", "PUT",
    "/queues/mail", b"{}"),
    ("admin", "PUT", "/queues/default", b'{"rate_limit":{"rate_per_s":5,"burst":3}}'), ("admin", "PUT",
    "/queues/default", b"{}"),
    ("admin", "PUT", "/queues/mail", b'{"lease_ms":7000,"max_running":3}'), ("admin", "PUT", "/queues/mail", b"{}"),
    ("admin", "POST", "/queues/mail/pause?create=true", b"{}"), ("admin", "POST", "/queues/mail/resume", b""),
    ("admin", "POST", "/queues/mail/resume", b""), ("admin", "POST", "/queues/default/purge", b"{}"),
    ("client", "GET", "/jobs/{id}", b""), ("client", "POST", "/jobs/{id}/cancel", b""), ("client", "DELETE",
    "/jobs/{id}", b""),
    ("client", "GET", "/jobs?limit=3", b""), ("client", "GET", "/queues", b""), ("client", "GET", "/workers", b""),
    ("client", "POST", "/jobs/{id}/redrive", b"{}"), ("client", "PATCH", "/jobs/{id}", b'{"priority":9}'),
    ("worker", "POST", "/jobs/{id}/progress", b'{"lease_token":"{token}","percent":50}'), ("worker", "POST", "/jobs",
    b'{"payload":1}'),
    ("worker", "POST", "/transactions", b'{"ops":[{"op":"ack","job_id":"{id}","lease_token":"{token}"}]}'),
    (None, "GET", "/health", b""), (None, "POST", "/jobs", b'{"payload":1}'), ("client", "POST", "/jobs/lease", b""),
]  # fmt: skip


class Requests:
    """Draws requests; learns from the answers which leases there are."""

    def __init__(self, rng: random.Random, secrets: dict[str, str], kept: list[bytes]) -> None:
        """`kept`: bodies of the corpus."""
        self._rng, self._secrets, self._kept = rng, secrets, kept
        self._held: list[tuple[str, str]] = []
        self._bodies: dict[tuple[str, str], bytes] = {}  # of (path, idempotency key)

    def learn(self, body: bytes) -> None:
        """Learn from a body of an answer."""
        if b'"lease_token"' not in body:
            return
        answer = orjson.loads(body)
        leases = answer.get("jobs", [answer])
        self._held = [*self._held, *((lease["job_id"], lease["lease_token"]) for lease in leases)][-50:]

    def draw(self) -> bytes:
        rng = self._rng
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        if not self._held and kind in ("ack", "acks", "extend") and rng.random() < 0.95:
            kind = "lease"
        if kind == "other":
            return self._other()
        if kind == "lease":
            body = rng.choice(LEASES if rng.random() < 0.85 else ODD_LEASES)
            return self._request("worker", "/jobs/lease", body % rng.randrange(4) if b"%d" in body else body)
        if kind == "heartbeat":
            return self._request("worker", "/workers/heartbeat", self._heartbeat())
        job_id, token = self._lease()
        if kind == "extend":
            return self._request("worker", f"/jobs/{job_id}/extend", b"{" + b", ".join(self._extend(token)) + b"}")
        if kind == "ack":
            return self._request("worker", f"/jobs/{job_id}/ack", b"{" + b",".join(self._ack(token)) + b"}")
        if kind == "acks":
            leases = [self._lease() for _ in range(rng.choice([0, 1, 1, 1, 1, 2, 2, 5, 5]))]
            bodies = [b",".join([b'{"job_id":"%s"' % one.encode(), *self._ack(held)]) + b"}" for one, held in leases]
            return self._request("worker", "/jobs/ack", b'{"acks":[' + b",".join(bodies) + b"]}")
        if kind == "batch":
            count = rng.choice([0, 1, 1, 1, 1, 2, 2, 3, 3, 5, 20])
            jobs = [self._job() if rng.random() < 0.3 else b'{"payload":1}' for _ in range(count)]
            return self._request("client", "/jobs/batch", b'{"jobs":[' + rng.choice([b",", b" , "]).join(jobs) + b"]}")
        return self._request("client", "/jobs", self._job())

    def _lease(self) -> tuple[str, str]:
        """A lease that is held or was; now and then one that never was."""
        rng = self._rng
        if not self._held or rng.random() < 0.02:
            return rng.choice(["0" * 36, "none", "0" * 8 + "-" + "0" * 27]), "x"
        at = len(self._held) - 1 - min(int(rng.expovariate(0.4)), len(self._held) - 1)  # mostly one of the newest
        return self._held[at] if rng.random() < 0.2 else self._held.pop(at)

    def _job(self) -> bytes:
        rng = self._rng
        members = {b"payload": rng.choice(VALUES) if rng.random() < 0.2 else b'{"n": 1}'}
        for name in rng.sample(list(COMMON), rng.choice([0, 0, 1, 2])):
            members[name] = COMMON[name]
        for name in rng.sample(list(FIELDS), rng.choice([0, 0, 0, 0, 1, 1, 2])):
            members[name] = rng.choice(FIELDS[name][:2] * 15 + FIELDS[name])
        if b"on_duplicate" in members and rng.random() < 0.95:
            members[b"unique_key"] = rng.choice(FIELDS[b"unique_key"][:2])
        shown = [b'"%s"%s%s' % (name, rng.choice([b":", b":", b" : "]), value) for name, value in members.items()]
        if rng.random() < 0.3:
            rng.shuffle(shown)
        return b"{" + rng.choice([b",", b",", b" ,\n"]).join(shown) + b"}"

    def _ack(self, token: str) -> list[bytes]:
        rng = self._rng
        members = [b'"lease_token":"%s"' % token.encode()] if rng.random() < 0.95 else []
        if rng.random() < 0.5:
            members.append(b'"result":' + rng.choice(VALUES[:1] * 10 + VALUES))
        if rng.random() < 0.2:
            members.append(b'"outcome":' + rng.choice([b'"ok"', b'"ok"', b'"error"', b'"release"', b"null"]))
        return members

    def _extend(self, token: str) -> list[bytes]:
        rng = self._rng
        members = [b'"lease_token":"%s"' % token.encode()] if rng.random() < 0.95 else []
        if rng.random() < 0.6:
            members.append(b'"lease_ms":' + rng.choice(DURATIONS[:3] * 5 + DURATIONS))
        return members

    def _heartbeat(self) -> bytes:
        rng = self._rng
        members = [b'"worker_id":' + rng.choice(WORKERS[:4] * 5 + WORKERS)] if rng.random() < 0.97 else []
        if rng.random() < 0.9:
            held = rng.sample(self._held, min(len(self._held), rng.choice([0, 1, 1, 2, 5])))
            held += rng.choice([[], [], [], [], [], [("0" * 36, "x")], [("no id", "x")], held[:1]])
            shown = [[b'"job_id":"%s"' % one.encode(), b'"lease_token":"%s"' % token.encode()] for one, token in held]
            if shown and rng.random() < 0.1:
                shown[0].append(rng.choice([b'"lease_ms":2000', b'"more":1', *shown[0]]))
            leases = [b"{" + rng.choice([b",", b" , "]).join(one[:: rng.choice([1, -1])]) + b"}" for one in shown]
            members.append(b'"leases": [' + rng.choice([b",", b" , "]).join(leases) + b"]")
        if rng.random() < 0.3:
            members.append(b'"lease_ms":' + rng.choice(DURATIONS[:3] * 5 + DURATIONS))
        if rng.random() < 0.3:
            rng.shuffle(members)
        return b"{" + b",".join(members) + b"}"

    def _other(self) -> bytes:
        who, method, path, body = self._rng.choice(OTHERS)
        job_id, token = self._lease()
        body = body.replace(b"{id}", job_id.encode()).replace(b"{token}", token.encode())
        lines = [f"{method} {path.replace('{id}', job_id)} HTTP/1.1", "Host: test"]
        if who is not None:
            lines.append(f"Authorization: Bearer {self._secrets[who]}")
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body

    def _request(self, who: str, path: str, body: bytes) -> bytes:
        rng = self._rng
        if self._kept and rng.random() < 0.01:
            body = rng.choice(self._kept)
        lines = []
        if rng.random() < 0.08:
            body = near_json.changed(body, rng)
            if rng.random() < 0.2:
                body = near_json.changed(body, rng)
        if rng.random() < 0.3:
            key = rng.choice(KEYS)
            if key == "fresh":
                key = rng.randbytes(8).hex()
            elif rng.random() < 0.05:
                key = rng.choice(ODD_KEYS)
            elif rng.random() < 0.93:  # again what it came with first
                body = self._bodies.setdefault((path, key), body)
            lines.append(f"Idempotency-Key: {key}")
        if rng.random() < 0.2:
            lines.append(f"traceparent: {TRACE if rng.random() < 0.9 else TRACE.upper()}")
        return odd_heads.request(path, self._secrets[who], lines, body, rng, odd=rng.random() < 0.04)
