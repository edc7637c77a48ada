from __future__ import annotations

from tests.console.conftest import Browser
from tests.http.world import World


async def fail(world: World, queue: str, error: str, code: str, who: str = "client") -> str:
    job_id = await world.submit(queue=queue, who=who, max_retries=0)
    lease = await world.lease({"queues": [queue]})
    body = {"lease_token": lease["lease_token"], "result_error": error} | ({"error_code": code} if code else {})
    assert (await world.call("worker", "POST", f"/jobs/{job_id}/ack", body)).status == 200
    return job_id


async def test_failures_are_grouped_and_lead_to_their_jobs(world: World, admin: Browser) -> None:
    for _ in range(3):
        job_id = await fail(world, "mail", "SMTP 451: busy\nTraceback", "smtp")
    await fail(world, "images", "ValueError: no\nTraceback", "")
    page = await admin.page("/console/failures")
    assert page.count("SMTP 451: busy") == 1 and "Traceback" not in page
    link = "/console/jobs?queue=mail&amp;error_code=smtp&amp;error=SMTP+451%3A+busy"
    assert link in page
    assert (await admin.page(link.replace("&amp;", "&"))).count("SMTP 451: busy") >= 3
    assert f"/console/jobs/{job_id}" in page
    assert "ValueError" not in await admin.page("/console/failures?queue=mail")


async def test_a_client_sees_its_own_failures(world: World, client: Browser) -> None:
    await fail(world, "mail", "mine", "")
    await fail(world, "mail", "of another", "", who="stranger")
    page = await client.page("/console/failures")
    assert "mine" in page and "of another" not in page


async def test_without_failures_it_says_so(admin: Browser) -> None:
    assert "No attempt failed." in await admin.page("/console/failures")
