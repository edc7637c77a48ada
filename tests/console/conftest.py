"""A browser without scripts: it keeps the cookie, and reads the token of the forms."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from urllib.parse import urlencode

import pytest

from tests.http.wire import Reply
from tests.http.world import World, running

CSRF = re.compile(r'name="csrf" value="([^"]+)"')
FORM = ("Content-Type", "application/x-www-form-urlencoded")


class Browser:
    def __init__(self, world: World) -> None:
        self.world = world
        self.cookie = ""
        self.csrf = ""

    async def log_in(self, who: str) -> Browser:
        reply = await self.world.call(None, "POST", "/console/login", _form(key=self.world.secrets[who]), (FORM,))
        assert reply.status == 303, reply.body
        self.cookie = reply.headers["set-cookie"].partition(";")[0]
        return self

    async def get(self, path: str, *headers: tuple[str, str]) -> Reply:
        reply = await self.world.call(None, "GET", path, None, (*self._cookie(), *headers))
        if found := CSRF.search(reply.body.decode("utf-8", "replace")):
            self.csrf = unescape(found[1])
        return reply

    async def page(self, path: str) -> str:
        reply = await self.get(path)
        assert reply.status == 200, (reply.status, reply.body)
        return reply.body.decode()

    async def post(self, path: str, *headers: tuple[str, str], **fields: str) -> Reply:
        return await self.post_all(path, list(fields.items()), headers)

    async def post_all(
        self, path: str, fields: list[tuple[str, str]], headers: tuple[tuple[str, str], ...] = ()
    ) -> Reply:
        """Send a form whose fields may have several values."""
        if not self.csrf:
            await self.get("/console/jobs")
        token = [] if any(name == "csrf" for name, _ in fields) else [("csrf", self.csrf)]
        body = urlencode([*token, *fields]).encode()
        return await self.world.call(None, "POST", path, body, (FORM, *self._cookie(), *headers))

    async def follow(self, reply: Reply) -> str:
        assert reply.status == 303, (reply.status, reply.body)
        return await self.page(reply.headers["location"])

    def _cookie(self) -> tuple[tuple[str, str], ...]:
        return (("Cookie", self.cookie),) if self.cookie else ()


def _form(**fields: str) -> bytes:
    return urlencode(fields).encode()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running() as made:
        yield made


@pytest.fixture
async def admin(world: World) -> Browser:
    return await Browser(world).log_in("admin")


@pytest.fixture
async def client(world: World) -> Browser:
    return await Browser(world).log_in("client")
