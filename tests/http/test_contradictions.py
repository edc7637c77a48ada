"""What requests say that cannot be: fields of jobs, acks and leases that contradict each other or pass a limit."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.world import World

PATHS = {"submit": ("client", "/jobs"), "ack": ("worker", "/jobs/x/ack"), "lease": ("worker", "/jobs/lease")}


@pytest.mark.parametrize(
    ("route", "fields", "message"),
    [
        ("ack", {"outcome": "snooze"}, "delay_ms is required when outcome is snooze, and must be left out otherwise"),
        (
            "ack",
            {"delay_ms": 1},
            "delay_ms is required when outcome is snooze, and must be left out otherwise",
        ),
        ("ack", {"outcome": "release", "result_error": "x"}, "result_error must be empty when outcome is release"),
        (
            "ack",
            {"outcome": "release", "result": 1},
            "result must be left out when outcome is release",
        ),
        (
            "ack",
            {"error_code": "x"},
            "error_code must be left out unless outcome is error or discard",
        ),
        (
            "submit",
            {"expires_ms": 1, "expires_at": "2030-01-01T00:00:00Z"},
            "expires_at must be left out when expires_ms is given",
        ),
        ("submit", {"on_duplicate": "keep"}, "on_duplicate must be left out without unique_key"),
        ("submit", {"on_duplicate": "drop", "unique_key": "k"}, "on_duplicate must be keep or replace"),
        ("submit", {"backoff": {"base_ms": 2, "factor": 2, "cap_ms": 1}}, "backoff.cap_ms must be >= backoff.base_ms"),
        ("submit", {"backoff": {"base_ms": 0, "factor": 2, "cap_ms": 1}}, "backoff.base_ms must be >= 1"),
        ("submit", {"backoff": {"base_ms": 1, "factor": 0.5, "cap_ms": 1}}, "backoff.factor must be >= 1"),
        ("submit", {"backoff": {"cap": 1}}, "unknown field: backoff.cap"),
        ("submit", {"traceparent": "00-x"}, "traceparent must be a W3C Trace Context value of 55 characters"),
        ("submit", {"group": "a b"}, "group must be 1 to 64 characters of A-Z a-z 0-9 . _ -"),
        ("submit", {"unique_key": ""}, "unique_key must be 1 to 200 bytes"),
        ("submit", {"idempotency_key": "ü" * 101}, "idempotency_key must be 1 to 200 bytes"),
        ("submit", {"unique_key": "a\nb"}, "unique_key must have printable characters only"),
        ("submit", {"tags": ["x" * 65]}, "tags must be 1 to 64 bytes"),
        ("submit", {"tags": ["x"] * 11}, "tags must be of length <= 10"),
        ("submit", {"expires_at": "2100-01-01T00:00:00Z"}, "expires_at must be at most 10 years ahead"),
        ("submit", {"expires_ms": 0}, "expires_ms must be >= 1"),
        ("submit", {"lease_ms": 999}, "lease_ms must be >= 1000"),
        ("lease", {"queues": {"a": 0}}, "queues must be >= 1"),
        ("lease", {"queues": {"a": 1001}}, "queues must be <= 1000"),
        ("lease", {"queues": {"a b": 1}}, "queues must be 1 to 64 characters of A-Z a-z 0-9 . _ -"),
        ("lease", {"queues": {}}, "queues must have at least 1 entry, or be left out"),
    ],
)
async def test_refused_by_name(world: World, route: str, fields: Any, message: str) -> None:
    who, path = PATHS[route]
    reply = await world.call(who, "POST", path, ({"payload": 1} if route == "submit" else {}) | fields)
    assert (reply.status, reply.error) == (400, message)
