"""A body that is nested too deep is refused with 400, wherever the depth is, on every route that takes members."""

from __future__ import annotations

import pytest

from tests.http.world import World

MEMBERS = {
    "/jobs/batch": b'{"jobs":[{"payload":%s}]}',
    "/jobs/ack": b'{"acks":[{"job_id":"j","result":%s}]}',
    "/transactions": b'{"ops":[{"submit":{"payload":%s}}]}',
    "/jobs": b'{"payload":%s}',
}
DEEP = [b"[" * 2000 + b"]" * 2000, b'{"a":' * 2000 + b"1" + b"}" * 2000, b"[" * 100_000]


@pytest.mark.parametrize("path", MEMBERS)
async def test_a_deep_body_is_a_bad_request(world: World, path: str) -> None:
    for deep in DEEP:
        for body in (MEMBERS[path] % deep, b'{"unknown":%s}' % deep, deep):
            reply = await world.call("admin", "POST", path, body)
            assert (reply.status, reply.json["code"]) == (400, "invalid_request"), body[:40]
            assert "nested deeper than" in reply.json["error"]
