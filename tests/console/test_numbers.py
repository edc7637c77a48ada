"""Numbers in forms and addresses: what cannot be one is refused in words, whatever it is."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.console.conftest import Browser

NUMBERS = ["9" * 18, "-" + "9" * 17, "9" * 5_000, "-1", "1e400", "\u00b2", "\u0663", "1_0", "\x00", "-", "0x1", "2.5"]


@pytest.mark.parametrize("text", NUMBERS)
async def test_a_number_in_a_form_is_taken_or_refused(admin: Browser, text: str) -> None:
    assert (await admin.post("/console/submit", payload="1", queue="q")).status == 303
    for path, names in [
        ("/console/submit", ("delay_s", "priority", "max_retries")),
        ("/console/queues/q/settings", ("kept_acked_h", "kept_dead_h", "kept_max", "lease_ms", "max_depth")),
        (f"/console/keys/{admin.world.key_ids['client']}/rotate", ("overlap_h",)),
    ]:
        for name in names:
            reply = await admin.post(path, payload="1", **{name: text})
            assert reply.status in (200, 303, 400), (path, name, reply.status)


@pytest.mark.parametrize("text", NUMBERS)
async def test_a_number_in_an_address_is_taken_or_refused(admin: Browser, text: str) -> None:
    for path in ("audit?before=", "keys?after=", "workers?page=", "jobs?cursor=", "queues?after="):
        reply = await admin.get(f"/console/{path}{quote(text)}")
        assert reply.status in (200, 400), (path, reply.status)
