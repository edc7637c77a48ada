from __future__ import annotations

from urllib.parse import quote

import pytest

from fastq.console.sessions import IDLE_US, SESSIONS_MAX, Sessions
from fastq.services.auth import Authenticator
from fastq.services.keys import Grants
from tests.console.conftest import FORM, Browser
from tests.http.world import World


async def test_a_page_without_a_session_leads_to_the_login_and_back(world: World) -> None:
    browser = Browser(world)
    reply = await browser.get("/console/jobs?state=DEAD")
    assert reply.status == 401
    target = "/console/login?next=%2Fconsole%2Fjobs%3Fstate%3DDEAD"
    assert f"url={target}".encode() in reply.body, "a cookie with SameSite=Strict comes with the second request only"
    assert b'name="next" value="/console/jobs?state=DEAD"' in (await browser.get(target)).body
    await browser.log_in("client")
    reply = await browser.get(target)
    assert (reply.status, reply.headers["location"]) == (303, "/console/jobs?state=DEAD")


@pytest.mark.parametrize("target", ["/console/\u2603", "/console/a\x00b", "/console/x?tag=\u00e9&q=\x7f"])
async def test_the_login_leads_to_any_page_with_an_address_that_fits_a_header(world: World, target: str) -> None:
    reply = await Browser(world).post("/console/login", key=world.secrets["client"], next=target)
    assert (reply.status, reply.headers["location"]) == (303, quote(target, safe="/?=&"))


@pytest.mark.parametrize(
    "target",
    ["https://evil.example/", "//evil.example/", "/\\evil.example", "/jobs", "/console/x\ny", "/" + "a" * 9999],
)
async def test_the_login_leads_only_to_pages_of_ours(world: World, target: str) -> None:
    reply = await Browser(world).post("/console/login", key=world.secrets["client"], next=target)
    assert (reply.status, reply.headers["location"]) == (303, "/")


async def test_the_cookie_is_kept_from_scripts_and_other_sites(world: World) -> None:
    reply = await world.call(None, "POST", "/console/login", b"key=" + world.secrets["client"].encode(), (FORM,))
    _, *attributes = reply.headers["set-cookie"].split("; ")
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Strict"]
    proxied = (("X-Forwarded-Proto", "https"), ("X-Forwarded-Prefix", "/queue"))
    reply = await world.call(
        None, "POST", "/console/login", b"key=" + world.secrets["client"].encode(), (FORM, *proxied)
    )
    _, *attributes = reply.headers["set-cookie"].split("; ")
    assert sorted(attributes) == ["HttpOnly", "Path=/queue/", "SameSite=Strict", "Secure"]
    assert reply.headers["location"] == "/queue/"


async def test_a_session_ends_with_its_key_also_while_a_form_comes(world: World, client: Browser) -> None:
    await client.page("/console/jobs")
    assert (await world.call("admin", "DELETE", f"/keys/{world.key_ids['client']}")).status == 200
    assert (await client.get("/console/jobs")).status == 401
    reply = await client.post("/console/submit", payload='"lost"')
    assert reply.status == 401
    assert (await world.call("admin", "GET", "/jobs")).json["jobs"] == []


async def test_a_wrong_key_is_refused_and_guessing_is_slowed_down(world: World) -> None:
    statuses = [(await Browser(world).post("/console/login", key=f"admin_{n}")).status for n in range(25)]
    assert statuses[:20] == [401] * 20
    assert statuses[-1] == 429
    assert b'value="admin_' not in (await Browser(world).post("/console/login", key="admin_shown")).body


async def test_a_key_that_may_not_read_does_not_log_in(world: World) -> None:
    await world.make_key("submitter", "client", grants=Grants(scopes=("jobs:submit",)))
    reply = await Browser(world).post("/console/login", key=world.secrets["submitter"])
    assert reply.status == 403
    assert b"jobs:read" in reply.body


async def test_log_out_ends_the_session(world: World, client: Browser) -> None:
    assert (await client.post("/console/logout")).status == 303
    assert (await client.get("/console/jobs")).status == 401


async def test_sessions_end_unused_and_are_bounded(world: World) -> None:
    now_us = 0
    auth = Authenticator(world.keys, world.engine.now_us)
    sessions = Sessions(auth, lambda: now_us, "x")

    class Request:
        def __init__(self, token: str) -> None:
            self.token = token

        def get_cookie_values(self, name: str) -> list[str]:
            return [self.token]

    token, _ = await sessions.open(world.secrets["client"], "")
    now_us = IDLE_US
    assert await sessions.of(Request(token)) is not None  # type: ignore[arg-type]
    now_us = 2 * IDLE_US + 1
    assert await sessions.of(Request(token)) is None  # type: ignore[arg-type]
    for _ in range(SESSIONS_MAX + 5):
        await sessions.open(world.secrets["client"], "")
    assert len(sessions._sessions) == SESSIONS_MAX


async def test_a_key_that_logs_in_over_and_over_ends_only_its_own_sessions(world: World) -> None:
    sessions = Sessions(Authenticator(world.keys, world.engine.now_us), world.engine.now_us, "x")
    await sessions.open(world.secrets["admin"], "")
    for _ in range(SESSIONS_MAX + 5):
        await sessions.open(world.secrets["client"], "")
    held = [session.secret for session in sessions._sessions.values()]
    assert (held.count(world.secrets["admin"]), len(held)) == (1, SESSIONS_MAX)


async def test_a_form_of_another_site_or_session_changes_nothing(world: World, client: Browser) -> None:
    for headers, fields in [
        ((), {"csrf": "wrong"}),
        ((), {"csrf": ""}),
        ((("Sec-Fetch-Site", "cross-site"),), {}),
        ((("Sec-Fetch-Site", "same-site"),), {}),
    ]:
        reply = await client.post("/console/submit", *headers, payload="1", **fields)
        assert reply.status == 403
    assert (await world.call("admin", "GET", "/jobs")).json["jobs"] == []
    assert (await client.post("/console/submit", ("Sec-Fetch-Site", "same-origin"), payload="1")).status == 303


async def test_a_cookie_is_no_key_of_the_api(world: World, admin: Browser) -> None:
    for method, path in [("GET", "/jobs"), ("POST", "/jobs"), ("GET", "/admin/keys"), ("DELETE", "/keys/x")]:
        assert (await world.call(None, method, path, None, (("Cookie", admin.cookie),))).status == 401
