from __future__ import annotations

import re
from html import unescape

from tests.console.conftest import Browser
from tests.http.world import World

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def field(page: str, name: str) -> str:
    found = re.search(rf'<textarea name="{name}"[^>]*>(.*?)</textarea>', page, re.DOTALL) or re.search(
        rf'name="{name}"[^>]* value="([^"]*)"', page
    )
    assert found is not None, name
    return unescape(found[1])


async def test_a_job_is_found_by_its_id(world: World, client: Browser) -> None:
    job_id = await world.submit()
    assert f"{job_id}</span></h1>" in await client.follow(await client.get(f"/console/find?job_id=%20{job_id}%20"))
    theirs = await world.submit(who="stranger")
    for other in (theirs, "", "x", "..%2F..%2Flogout", "https:%2F%2Fevil.example", "a" * 300):
        assert (await client.get(f"/console/find?job_id={other}")).status == 404, other


async def test_the_trace_of_a_job(world: World, client: Browser) -> None:
    job_id = await world.submit(traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
    assert f'<dd class="mono">{TRACE}</dd>' in await client.page(f"/console/jobs/{job_id}")
    job_id = await world.submit()
    assert "<dt>Trace</dt>" not in await client.page(f"/console/jobs/{job_id}")


async def test_an_edit_changes_what_differs(world: World, client: Browser) -> None:
    payload = {"n": 9223372036854775808, "t": "a\u202eb</textarea>"}
    job_id = await world.submit(payload, queue="mail", priority=3)
    path = f"/console/jobs/{job_id}"
    page = await client.page(path)
    names = ("queue", "priority", "run_at", "payload")
    values = {name: field(page, name) for name in names}
    assert values["queue"] == "mail" and "9223372036854775808" in values["payload"]
    page = await client.follow(await client.post(f"{path}/edit", **values))
    assert "Nothing was changed." in page
    page = await client.follow(await client.post(f"{path}/edit", **values | {"priority": "7"}))
    assert "Saved" in page and field(page, "priority") == "7"
    shown = (await world.call("client", "GET", f"/jobs/{job_id}?include=payload")).json
    assert (shown["priority"], shown["queue"], shown["payload"]) == (7, "mail", payload)


async def test_what_is_wrong_in_an_edit_is_said_and_the_values_stay(world: World, client: Browser) -> None:
    job_id = await world.submit(queue="mail")
    path = f"/console/jobs/{job_id}"
    page = await client.page(path)
    values = {name: field(page, name) for name in ("queue", "priority", "run_at", "payload")}
    for name, bad in (("priority", "many"), ("payload", "{"), ("queue", "a b"), ("run_at", "tomorrow")):
        reply = await client.post(f"{path}/edit", **values | {name: bad})
        text = reply.body.decode()
        assert reply.status == 400 and "<details open><summary>Edit" in text, name
        assert field(text, name) == bad
    assert (await world.show(job_id))["queue"] == "mail"


async def test_what_is_wrong_in_a_submit_is_said_and_the_values_stay(world: World, client: Browser) -> None:
    values = {"payload": '{"a": 1}', "queue": "mail", "priority": "3", "delay_s": "", "group": "g", "tags": "x, y"}
    for name, bad in (("payload", "{"), ("queue", "a b"), ("priority", "high"), ("delay_s", "-1")):
        reply = await client.post("/console/submit", **values | {name: bad})
        text = reply.body.decode()
        assert reply.status == 400 and 'role="alert"' in text, name
        assert {one: field(text, one) for one in values} == values | {name: bad}
    assert (await world.call("client", "GET", "/jobs")).json["jobs"] == []
    reply = await client.post("/console/submit", **values)
    page = await client.follow(reply)
    job_id = reply.headers["location"].rpartition("/")[2]
    assert "Submitted." in page
    page = await client.page(f"/console/submit?again={job_id}")
    assert (field(page, "group"), field(page, "tags"), field(page, "payload")) == ("g", "x, y", '{"a": 1}')


async def test_a_payload_that_is_too_long_for_the_form_stays(world: World, client: Browser) -> None:
    job_id = await world.submit("x" * 100_000)
    path = f"/console/jobs/{job_id}"
    page = await client.page(path)
    assert field(page, "payload") == "" and "it is too long to show here" in page
    await client.post(f"{path}/edit", queue="mail", priority="1", payload="")
    shown = (await world.call("client", "GET", f"/jobs/{job_id}?include=payload")).json
    assert (shown["queue"], len(shown["payload"])) == ("mail", 100_000)
