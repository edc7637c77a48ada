"""No answer of any route leaves before everything that it shows is durable. The tests cover new routes too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from falcon.asgi import Request, Response

from fastq.engine.commits import Commits
from fastq.http.output_commit import OutputCommit, Pieces
from fastq.http.routes import OPEN, Route
from tests.engines import is_pending
from tests.engines import running as engine_running
from tests.http.wire import PATIENCE_S, Reply, Wire, request_bytes
from tests.http.world import World, running

NAMES = {"queue": "default", "schedule": "s", "key": "nope", "key_id": "nope"}


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


async def request_for(world: World, route: Route) -> bytes:
    """A request that the route accepts as far as possible."""
    path = route.path
    for field in route.path_fields:
        value = await world.submit() if field == "job_id" else NAMES[field]
        path = path.replace("{" + field + "}", value)
    body = None if route.body is None else orjson.dumps({} if route.example is None else route.example)
    return request_bytes(route.method, path, (world.bearer("admin"),), body)


async def answered_while_held(world: World, wire: Wire, request: bytes) -> bool:
    """Whether a request is answered before an earlier change is durable. It is answered afterwards."""
    world.log.hold()
    world.engine.put_document(9, "before", b"it")
    commits = world.engine.commits

    def is_waiting() -> bool:
        return bool(commits._until_visible or commits._until_durable)

    assert not is_waiting()
    await wire.send(request)
    reply = asyncio.create_task(wire.reply())
    async with asyncio.timeout(PATIENCE_S):
        while not (is_waiting() or reply.done()):  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
    leaked = not await is_pending(reply)
    world.log.release()
    answer: Reply = await reply
    assert answer.status < 600
    return leaked


async def leaks(world: World) -> set[str]:
    """The routes that answer before a change before them is durable."""
    found = set()
    for route in world.app.route_table:
        request = await request_for(world, route)
        wire = await world.connect()
        if await answered_while_held(world, wire, request):
            found.add(name_of(route))
        await wire.close()
    return found


async def test_every_route_waits_except_open_ones(world: World) -> None:
    assert await leaks(world) == {name_of(route) for route in world.app.route_table if route.scope == OPEN}


async def test_a_route_that_does_not_wait_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_arguments: Any) -> None: ...

    monkeypatch.setattr(OutputCommit, "process_response", nothing)
    monkeypatch.setattr(Commits, "caught_up", nothing)  # work in slices waits for the disk by itself
    async with running(lane=False) as world:
        assert await leaks(world) == {name_of(route) for route in world.app.route_table}


@pytest.mark.parametrize(
    ("who", "method", "path"),
    [("client", "GET", "/nope"), ("client", "PUT", "/jobs"), ("client", "GET", "/admin/keys"), (None, "GET", "/jobs")],
    ids=["no such path", "no such method", "forbidden", "no key"],
)
async def test_refusals_before_any_route_wait_too(world: World, who: str | None, method: str, path: str) -> None:
    headers = () if who is None else (world.bearer(who),)
    assert not await answered_while_held(world, await world.connect(), request_bytes(method, path, headers, None))


async def test_a_node_that_does_not_lead_holds_durable_answers(world: World) -> None:
    await world.submit()
    await world.lease({})
    world.log.silence()
    asked: list[tuple[str, str, str, Any]] = [
        ("client", "POST", "/jobs", {"payload": 1}),
        ("worker", "POST", "/jobs/lease", {"queues": ["none"]}),
        ("client", "GET", "/jobs", None),
    ]
    replies = []
    for who, method, path, body in asked:
        wire = await world.connect()
        content = None if body is None else orjson.dumps(body)
        await wire.send(request_bytes(method, path, (world.bearer(who),), content))
        replies.append(asyncio.create_task(wire.reply()))
    async with asyncio.timeout(PATIENCE_S):
        while len(world.engine.commits._until_visible) < 2:  # noqa: ASYNC110 - the lane waits once for all of a frame
            await asyncio.sleep(0)
    for reply in replies:
        assert await is_pending(reply)
    assert (await world.call(None, "GET", "/health")).status == 200
    world.log.speak()
    assert [(await reply).status for reply in replies] == [201, 404, 200]


async def test_a_lease_is_taken_back_if_its_request_is_cancelled() -> None:
    """Its task is cancelled, as an embedded caller does that gave up."""
    async with engine_running() as r:
        r.log.hold()
        r.engine.put_document(9, "before", b"it")
        undone: list[str] = []
        scope = {"type": "http", "path": "/", "query_string": b"", "headers": [], "method": "GET"}
        request, response = Request(scope, lambda: None), Response()
        response.context.undo = lambda: undone.append("it")
        task = asyncio.create_task(
            OutputCommit(r.engine.commits, frozenset()).process_response(request, response, None, True)
        )
        assert await is_pending(task)
        task.cancel()
        await asyncio.wait([task])
        assert undone == ["it"]


async def test_each_piece_of_a_streamed_answer_waits_until_it_is_durable() -> None:
    async with engine_running() as r:

        async def told() -> AsyncIterator[bytes]:
            yield b"a"
            r.log.hold()
            r.engine.put_document(9, "before", b"it")
            yield b"b"

        pieces = Pieces(r.engine.commits, told())
        assert await anext(pieces) == b"a"
        second = asyncio.ensure_future(anext(pieces))
        assert await is_pending(second)
        r.log.release()
        assert await second == b"b"
        await pieces.close()
