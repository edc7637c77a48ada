"""No error says the same twice, except where the original's clients expect its words."""

from __future__ import annotations

import re
from typing import Any

from tests.http.world import World

PATH = {"job_id": "nope", "queue": "nope", "schedule": "nope", "key": "nope", "key_id": "nope"}
BODIES: list[Any] = [
    None, b"{}", b"[]", b"nope", {"lease_token": "x"}, {"payload": 1, "queue": "a b"}, {"jobs": [{"payload": None}]},
    {"ops": [{"ack": {"job_id": "x", "lease_token": "y"}}]}, {"acks": [{"job_id": "x", "lease_token": "y"}]},
    {"worker_id": "w", "leases": [{"job_id": "x", "lease_token": "y"}]}, {"filter": {"state": "x"}},
]  # fmt: skip
ORIGINAL = {"job not found: job not found: nope", "no jobs available: no jobs available"}
_TWICE = re.compile(r"\b(\w{4,}(?: \w+)+)\b.*\b\1\b")
_ERROR = re.compile(r'"error":"((?:[^"\\]|\\.)*)"')


def says_twice(message: str) -> bool:
    parts = [part.strip() for part in message.split(":")]
    return len(set(parts)) < len(parts) or _TWICE.search(message) is not None


def test_what_counts_as_twice() -> None:
    assert says_twice("job not found: job not found: x")
    assert not says_twice("failed to ack job: job not found: x")


async def test_errors_say_it_once(world: World) -> None:
    seen = set()
    for route in world.app.route_table:
        for who in ("admin", "worker", "client"):
            for body in BODIES if route.body is not None else BODIES[:1]:
                reply = await world.call(who, route.method, route.path.format_map(PATH), body)
                seen |= set(_ERROR.findall(reply.body.decode(errors="replace")))
    assert len(seen) > 30
    assert {message for message in seen if says_twice(message)} <= ORIGINAL
