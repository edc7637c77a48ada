from __future__ import annotations

import pytest

from fastq.console.pages import overview
from tests.console.conftest import Browser
from tests.http.world import World


@pytest.fixture(autouse=True)
def not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request makes its page anew."""
    monkeypatch.setattr(overview, "SHARED_US", -1)


async def test_an_empty_server_says_what_to_do_next(admin: Browser) -> None:
    page = await admin.page("/")
    assert "Nothing waits and nothing runs." in page
    assert "fastq submit" in page


async def test_a_stuck_queue_is_the_headline_in_words(world: World, admin: Browser) -> None:
    await world.submit(queue="mail")
    assert (await world.call("admin", "POST", "/queues/mail/pause", {"reason": "ask Ann"})).status == 200
    assert "paused: ask Ann" in await admin.page("/")
    world.hands.ahead_us += 200_000_000
    page = await admin.page("/")
    assert "mail</bdi></a></b>: 1 waits, the oldest for 3 min: paused: ask Ann." in page


async def test_nobody_asks_is_said(world: World, admin: Browser) -> None:
    await world.submit(queue="mail")
    world.hands.ahead_us += 200_000_000
    assert "no worker has asked since the server started" in await admin.page("/")


async def test_a_client_sees_its_own_figures_and_nothing_of_others(world: World, client: Browser) -> None:
    own = await world.submit(queue="shared")
    other = await world.submit(queue="shared", who="stranger")
    await world.submit(queue="unseen", who="stranger")
    page = await client.page("/")
    assert own in page and other not in page and "unseen" not in page
    assert "1 of your jobs waits." in page
    assert "a second" not in page, "rates are of all jobs"


async def test_a_piece_of_the_page_is_the_piece_alone(admin: Browser) -> None:
    piece = (await admin.get("/?part=live", ("HX-Request", "true"))).body.decode()
    assert piece.lstrip().startswith('<div id="overview"') and "<html" not in piece


async def test_visitors_that_see_the_same_share_the_work(
    world: World, admin: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "SHARED_US", 60_000_000)
    await admin.page("/")
    job_id = await world.submit(queue="late")
    assert job_id not in await admin.page("/")
    assert job_id in await (await Browser(world).log_in("client")).page("/"), "one that sees other jobs does not"


async def test_the_first_screen_does_not_call_it_moving_when_nothing_is_leased(world: World, admin: Browser) -> None:
    await world.submit()
    page = await admin.page("/")
    assert "Work is moving" not in page
    assert "1 waits" in page and "none was leased in the last 10 s" in page
