from __future__ import annotations

import re
from html import unescape

from fastq.services.keys import Grants
from tests.console.conftest import Browser
from tests.http.world import World

NEW = {"name": "nightly", "cron": "30 2 * * MON-FRI", "timezone": "Europe/Vienna", "catch_up": "one", "overlap": "skip",
       "catch_up_max": "100", "job": '{"payload": {"n": 9223372036854775808}, "queue": "reports"}'}  # fmt: skip


async def create(browser: Browser, **fields: str) -> None:
    reply = await browser.post("/console/schedules", **{**NEW, **fields})
    assert reply.status == 303, reply.body


async def test_a_schedule_by_form(world: World, admin: Browser) -> None:
    page = await admin.page("/console/schedules")
    assert "No schedules yet" in page
    page = await admin.follow(await admin.post("/console/schedules", **NEW))
    assert "at 02:30 from Monday to Friday, Europe/Vienna" in page
    assert len(re.findall(r"<li>(?:Mon|Tue|Wed|Thu|Fri) \d{4}-\d\d-\d\d 02:30 CES?T", page)) == 5
    assert "9223372036854775808" in page
    assert "Changed <small>" in page, "the audit entry stands beside it"
    kept = (await world.call("admin", "GET", "/schedules/nightly")).json
    assert (kept["cron"], kept["job"]["queue"]) == ("30 2 * * MON-FRI", "reports")
    assert 'href="/console/schedules/nightly"' in await admin.page("/console/schedules")


async def test_what_is_wrong_is_said_and_the_values_stay(world: World, admin: Browser) -> None:
    for field, bad, said in [
        ("cron", "61 * * * *", "cron is invalid"),
        ("timezone", "Mars/Base", "timezone must be"),
        ("job", "{", "job must be JSON"),
        ("job", "[]", "job must be a JSON object"),
        ("job", '{"payload":1,"nope":2}', "nope"),
        ("job", '{"payload":1},"cron":"* * * * *"', "job must be JSON"),
        ("catch_up_max", "many", "catch_up_max must be"),
        ("name", "a b", "name"),
    ]:
        reply = await admin.post("/console/schedules", **{**NEW, field: bad})
        assert reply.status == 400, field
        text = unescape(reply.body.decode())
        assert said in text, text
        for name in ("cron", "timezone"):
            assert f'value="{bad if name == field else NEW[name]}"' in text
    assert (await world.call("admin", "GET", "/schedules")).json["schedules"] == []
    await create(admin)
    reply = await admin.post("/console/schedules", **{**NEW, "cron": "* * * * *"})
    assert reply.status == 400 and b"there is a schedule nightly" in reply.body
    reply = await admin.post("/console/schedules/nightly", **{**NEW, "cron": "nonsense"})
    assert reply.status == 400 and b'value="nonsense"' in reply.body


async def test_an_edit_keeps_the_job_byte_for_byte(world: World, admin: Browser) -> None:
    job = '{ "payload":{"n":-0.10,"m":18446744073709551617,"t":"</textarea><script>"} ,  "queue":"q"}'
    await create(admin, job=job)
    page = await admin.page("/console/schedules/nightly")
    assert "<script>" not in page.partition("</head>")[2]
    found = re.search(r'<textarea name="job"[^>]*>(.*?)</textarea>', page, re.DOTALL)
    assert found is not None and unescape(found[1]) == job
    fields = {**NEW, "job": unescape(found[1])}
    assert (await admin.post("/console/schedules/nightly", **fields)).status == 303
    entries = (await world.call("admin", "GET", "/admin/audit")).json["entries"]
    assert [entry["action"] for entry in entries if entry["action"].startswith("schedule.")] == ["schedule.put"]
    assert (await admin.post("/console/schedules/nightly", **{**fields, "cron": "0 3 * * *"})).status == 303
    assert "at 03:00 every day" in await admin.page("/console/schedules/nightly")


async def test_pause_resume_run_delete(world: World, admin: Browser) -> None:
    await create(admin)
    page = await admin.follow(await admin.post("/console/schedules/nightly/pause"))
    assert "Next times, when it is resumed" in page
    assert "paused</span>" in await admin.page("/console/schedules")
    page = await admin.follow(await admin.post("/console/schedules/nightly/resume"))
    assert "Pause<" in page
    page = await admin.follow(await admin.post("/console/schedules/nightly/run"))
    (job,) = (await world.call("admin", "GET", "/jobs")).json["jobs"]
    assert f'href="/console/jobs/{job["job_id"]}"' in page and "ready</span>" in page
    assert (await admin.post("/console/schedules/nightly/delete", confirm="yes")).status == 400
    page = await admin.follow(await admin.post("/console/schedules/nightly/delete", confirm="delete"))
    assert "is deleted" in page
    assert (await admin.get("/console/schedules/nightly")).status == 404


async def test_the_outcome_of_the_last_job(world: World, admin: Browser) -> None:
    await create(admin)
    await admin.post("/console/schedules/nightly/run")
    lease = (await world.lease({"queues": ["reports"], "max": 1}))["jobs"][0]
    body = {"lease_token": lease["lease_token"], "result_error": "boom", "outcome": "discard"}
    assert (await world.call("worker", "POST", f"/jobs/{lease['job_id']}/ack", body)).status == 200
    assert "dead</span>" in await admin.page("/console/schedules")
    assert "failed for good" in await admin.page("/console/schedules/nightly")
    assert (await world.call("admin", "DELETE", f"/jobs/{lease['job_id']}")).status == 200
    assert "removed" in await admin.page("/console/schedules/nightly")


async def test_schedules_of_others_do_not_exist(world: World, admin: Browser) -> None:
    await create(admin)
    grants = Grants(scopes=("jobs:read", "schedules:manage"))
    await world.make_key("planner", "client", grants=grants)
    planner = await Browser(world).log_in("planner")
    assert 'schedules/nightly"' not in await planner.page("/console/schedules")
    assert (await planner.get("/console/schedules/nightly")).status == 404
    for act in ("", "/pause", "/run", "/delete"):
        reply = await planner.post(f"/console/schedules/nightly{act}", **NEW, confirm="delete")
        assert reply.status == 404, act
    assert (await planner.post("/console/schedules", **NEW)).status == 409
    assert (await admin.get("/console/schedules/nightly")).status == 200


async def test_an_interval(world: World, admin: Browser) -> None:
    await create(admin, cron="@every 90s")
    page = await admin.page("/console/schedules/nightly")
    assert "every 90 seconds</dd>" in page and 'value="@every 90s"' in page
    assert (await world.call("admin", "GET", "/schedules/nightly")).json["every_ms"] == 90_000
    reply = await admin.post("/console/schedules/nightly", **{**NEW, "cron": "@every year"})
    assert reply.status == 400 and b"an interval is" in reply.body


async def test_a_schedule_that_an_admin_changes_stays_its_owners(world: World, admin: Browser) -> None:
    grants = Grants(scopes=("jobs:read", "schedules:manage"))
    await world.make_key("planner", "client", grants=grants)
    planner = await Browser(world).log_in("planner")
    await create(planner)
    assert (await admin.post("/console/schedules/nightly", **{**NEW, "cron": "0 4 * * *"})).status == 303
    assert "at 04:00 every day" in await planner.page("/console/schedules/nightly")
    assert (await world.call("admin", "GET", "/schedules/nightly")).json["owner_id"] == "planner-owner"
