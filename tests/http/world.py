"""A whole server in the test's own event loop: keys, an engine over a log in memory, uvicorn with our protocol."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import orjson
import uvicorn

from fastq.clock import Clock, monotonic_us, wall_us
from fastq.engine import EngineOptions
from fastq.http.connection.protocol import Protocol
from fastq.http.lane._lane import Lane
from fastq.log.memory import MemoryLog
from fastq.log.protocol import Log
from fastq.server.assembly import Node
from fastq.services.keys import Grants
from fastq.services.keys.records import PLAIN
from tests.engines import Asking
from tests.http.wire import PATIENCE_S, Reply, Wire, request_bytes

ROLES = {"client": "client", "worker": "worker", "admin": "admin", "stranger": "client"}
"""name -> type of the keys that every world has; each belongs to an owner of its own, `<name>-owner`."""


class Hands:
    """The hands of a clock that a test may move forward."""

    def __init__(self, ahead_us: int = 0) -> None:
        self.ahead_us = ahead_us

    def clock(self) -> Clock:
        ahead_us = self.ahead_us
        return Clock(wall_us() + ahead_us, lambda: monotonic_us() + self.ahead_us, lambda: wall_us() + self.ahead_us)


class World:
    def __init__(self, node: Node, hands: Hands) -> None:
        self.node, self.engine, self.core = node, node.engine, node.core
        self.log = cast(MemoryLog, node.log)  # a test over files uses nothing that only this one has
        self.keys, self.app = node.keys, node.app
        self.ask = Asking(node.engine)
        self.hands = hands
        self.secrets: dict[str, str] = {}
        self.key_ids: dict[str, str] = {}
        self.port = 0
        self.server: uvicorn.Server
        self._wire: Wire | None = None
        self._wires: list[Wire] = []

    async def make_key(self, name: str, kind: str, owner_id: str | None = None, grants: Grants = PLAIN) -> str:
        """A key under `name` in `secrets`; its secret."""
        secret, record = await self.keys.create(
            name, owner_id or f"{name}-owner", kind, self.engine.now_us(), grants=grants
        )
        self.secrets[name], self.key_ids[name] = secret, record.key_id
        return secret

    async def connect(self) -> Wire:
        wire = await Wire.connect(self.port)
        self._wires.append(wire)
        return wire

    def bearer(self, who: str) -> tuple[str, str]:
        return "Authorization", f"Bearer {self.secrets[who]}"

    async def call(
        self,
        who: str | None,
        method: str,
        path: str,
        body: Any = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Reply:
        """One request on a kept connection.

        Args:
            who: a name in `secrets`, or None for no key.
            body: bytes are sent as they are, None sends none, anything else goes out as JSON.
        """
        content = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        if who is not None:
            headers = (self.bearer(who), *headers)
        if self._wire is None:
            self._wire = await self.connect()
        await self._wire.send(request_bytes(method, path, headers, content))
        reply = await self._wire.reply(head_only=method == "HEAD")
        if reply.headers.get("content-type") == "text/event-stream":
            await self._wire.close()
            self._wire = None
        elif reply.headers.get("connection") == "close":
            self._wire = None
        return reply

    async def hang_up(self) -> None:
        """Close every connection that was made."""
        self._wire = None
        for wire in self._wires:
            await wire.close()

    def waiting_in_the_lane(self) -> bool:
        """Whether some connection has a hot request that is not answered."""
        return any(isinstance(one, Lane) and one._has_answers() for one in self.server.server_state.connections)

    async def until_at_work(self) -> None:
        """Until the application has a request."""
        async with asyncio.timeout(PATIENCE_S):
            while not (self.server.server_state.tasks or self.waiting_in_the_lane()):  # noqa: ASYNC110 - no event
                await asyncio.sleep(0)

    async def until_parsed(self, head_bytes: int) -> None:
        """Until some connection has had so much of a head."""
        async with asyncio.timeout(PATIENCE_S):
            while not any(  # noqa: ASYNC110 - there is no event for it
                isinstance(one, Protocol) and one._head_bytes == head_bytes
                for one in self.server.server_state.connections
            ):
                await asyncio.sleep(0)

    async def until_at_rest(self) -> None:
        """Until the application has no request."""
        await asyncio.gather(*self.server.server_state.tasks)

    async def submit(self, payload: Any = "work", who: str = "client", **fields: Any) -> str:
        reply = await self.call(who, "POST", "/jobs", {"payload": payload, **fields})
        assert reply.status == 201, reply.body
        job_id: str = reply.json["job_id"]
        return job_id

    async def lease(self, body: Any = None) -> dict[str, Any]:
        reply = await self.call("worker", "POST", "/jobs/lease", body)
        assert reply.status == 200, reply.body
        leased: dict[str, Any] = reply.json
        return leased

    async def show(self, job_id: str, who: str = "client") -> dict[str, Any]:
        reply = await self.call(who, "GET", f"/jobs/{job_id}")
        assert reply.status == 200, reply.body
        shown: dict[str, Any] = reply.json
        return shown


@contextlib.asynccontextmanager
async def running(
    roles: Mapping[str, str] = ROLES,
    log: Log | None = None,
    redis_url: str | None = None,
    lane: bool = True,
    hands: Hands | None = None,
    **options: Any,
) -> AsyncIterator[World]:
    """A server that listens, with a key for each of `roles`; on a log that a crash left, or a new one.

    Keys are kept in the log or in Redis. `options` are the engine's.
    """
    hands = hands or Hands()
    failures: list[BaseException] = []
    node = Node(log or MemoryLog(), EngineOptions(**options), lambda: 0.5)
    node.open()
    async with node.running(hands.clock(), failures.append, redis_url) as keys:
        await keys.claim()
        async with node.serving("test") as app:
            world = World(node, hands)
            for name, kind in roles.items():
                await world.make_key(name, kind)
            async with serving(app, Lane if lane else Protocol) as (world.server, world.port):
                try:
                    yield world
                finally:
                    if isinstance(node.log, MemoryLog):
                        node.log.release()
                    await world.hang_up()
    assert not failures


@contextlib.asynccontextmanager
async def serving(app: Any, protocol: type[Protocol] = Lane) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """uvicorn with our protocol on a free port."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # so asyncio sets TCP_NODELAY
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    await server.on_tick(0)  # sets the Date header
    try:
        yield server, listener.getsockname()[1]
    finally:
        await _end(server)


async def _end(server: uvicorn.Server) -> None:
    """As uvicorn ends, without the pauses that it makes for other processes' sake."""
    for listening in server.servers:
        listening.close()
    for connection in list(server.server_state.connections):
        connection.shutdown()
    async with asyncio.timeout(PATIENCE_S):
        while server.server_state.connections or server.server_state.tasks:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0)
    for listening in server.servers:
        await listening.wait_closed()
