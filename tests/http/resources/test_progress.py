"""Progress, over a real socket."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.resources.requests import leased_job, post
from tests.http.world import World


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/jobs/x/progress", {"lease_token": "x", "percent": 101}, "percent must be <= 100"),
        ("/jobs/x/progress", {"lease_token": "x", "percent": 1, "note": "n" * 201}, "note must be at most 200 bytes"),
    ],
)
async def test_bad_input_is_named(world: World, path: str, body: Any, message: str) -> None:
    reply = await post(world, path, body, who="worker")
    assert (reply.status, reply.error) == (400, message)


async def test_progress_is_shown(world: World) -> None:
    leased = await leased_job(world)
    path, token = f"/jobs/{leased['job_id']}/progress", leased["lease_token"]
    reply = await post(world, path, {"lease_token": token, "percent": 40, "note": "half way"})
    assert reply.json == {"job_id": leased["job_id"], "cancel_requested": False}
    progress = (await world.show(leased["job_id"]))["progress"]
    assert (progress["percent"], progress["note"]) == (40, "half way")
    lost = await post(world, path, {"lease_token": "0" * 24, "percent": 41})
    assert (lost.status, lost.json["code"]) == (409, "lease_lost")
