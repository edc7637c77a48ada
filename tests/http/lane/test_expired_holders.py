"""A unique key whose holder waits past its expires_at is free, on the short way and on Falcon's."""

from __future__ import annotations

import pytest

from tests.http.lane.fuzz import Still
from tests.http.lane.test_short_way import LONG_WAY, SECOND_US, ask, warm
from tests.http.world import running


@pytest.mark.parametrize("headers", [(), (LONG_WAY,)])
@pytest.mark.parametrize("batch", [False, True])
async def test_an_expired_holder_gives_its_unique_key_to_the_next_job(
    batch: bool, headers: tuple[tuple[str, str], ...]
) -> None:
    """Its expiry is not logged yet: the clock stands still until the request."""
    async with running(hands=Still()) as world:
        wire = await world.connect()
        body = b'{"payload":1,"unique_key":"u","expires_ms":60000}'
        path = "/jobs/batch" if batch else "/jobs"
        body = b'{"jobs":[' + body + b"]}" if batch else body
        await warm(wire, world, "client", path, body)
        seen = []
        for step_us in (0, 60 * SECOND_US - 1, 1):
            world.hands.ahead_us += step_us
            reply = await ask(wire, world, "client", path, body, *headers)
            seen.append((reply.status, reply.json["job_ids"][0] if batch else reply.json["job_id"]))
        (first, old), again, (last, new) = seen
        assert (first, again, last) == (201, (200, old), 201)
        assert (await world.call("client", "GET", f"/jobs/{old}")).json["state"] == "EXPIRED"
        assert (await world.call("client", "GET", f"/jobs/{new}")).json["state"] == "READY"
