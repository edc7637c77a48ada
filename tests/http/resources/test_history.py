"""The history of a job, over a real socket."""

from __future__ import annotations

from tests.http.resources.requests import get
from tests.http.world import World


async def test_attempts_and_history_are_bounded(world: World) -> None:
    job_id = await world.submit(max_retries=1000)
    for n in range(60):
        leased = await world.lease({"worker_id": f"w{n}"})
        body = {"lease_token": leased["lease_token"], "result_error": f"boom {n}", "retry_after_ms": 0}
        await world.call("worker", "POST", f"/jobs/{job_id}/ack", body)
    attempts = (await get(world, f"/jobs/{job_id}/attempts"))["attempts"]
    assert [one["number"] for one in attempts] == list(range(60, 40, -1))
    assert attempts[0]["worker_id"] == "w59" and attempts[0]["error"] == "boom 59"
    events = (await get(world, f"/jobs/{job_id}/history"))["events"]
    assert [event["what"] for event in events] == ["attempt"] * 20 + ["submitted"]
    for n in range(60):
        await world.call("client", "PATCH", f"/jobs/{job_id}", {"priority": n})
    events = (await get(world, f"/jobs/{job_id}/history"))["events"]
    assert [event["what"] for event in events] == ["edited"] * 50 + ["submitted"]
