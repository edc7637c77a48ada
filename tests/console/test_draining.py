from __future__ import annotations

from fastq.console.site import NAV
from tests.console.conftest import Browser
from tests.http.world import World


async def test_while_the_server_stops_every_page_answers_and_says_so(world: World, admin: Browser) -> None:
    world.engine.drain()
    for path, name, _scope in NAV:
        assert f">{name}</h1>" in await admin.page(path), path
    assert "The server is stopping" in await admin.page("/")
    reply = await admin.post("/console/submit", payload="1")
    assert reply.status == 503
