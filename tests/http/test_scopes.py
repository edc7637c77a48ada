"""The scope matrix: every route of the table against no key, each type of key, and each scope alone."""

from __future__ import annotations

import itertools
import re

import pytest

from fastq.engine.commands import Principal
from fastq.errors import Forbidden, StartError
from fastq.http.routes import ADMIN, OPEN, SCOPES, Answer, Route, check_routes, enforce, may
from fastq.services.keys import DEFAULT_SCOPES, Grants
from tests.http.world import World, running

FIELD = re.compile(r"\{\w+\}")


def concrete(path: str) -> str:
    return FIELD.sub("absent", path)


def wanted(route: Route, kind: str, scopes: frozenset[str]) -> bool:
    """Whether a key may call the route, as the table of the API says it in words."""
    if route.scope == OPEN or kind == "admin":
        return True
    return route.scope != ADMIN and route.scope in scopes


async def test_every_route_by_no_key_and_each_type() -> None:
    async with running() as world:
        cases = 0
        for route in world.app.route_table:
            path = concrete(route.path)
            reply = await world.call(None, route.method, path)
            assert (reply.status == 401) == (route.scope != OPEN), (route.method, path)
            for kind in DEFAULT_SCOPES:
                reply = await world.call(kind, route.method, path)
                refused = reply.status == 403 and reply.json["code"] == "forbidden"
                allowed = wanted(route, kind, frozenset(DEFAULT_SCOPES[kind]))
                assert refused != allowed, (route.method, path, kind, reply)
                assert reply.status < 500
                if refused:
                    message = "Admin access required" if route.scope == ADMIN else "Insufficient permissions"
                    assert reply.error == message
                cases += 1
        assert cases == 3 * len(world.app.route_table)


async def test_every_route_by_each_scope_alone(world: World) -> None:
    for scope, kind in itertools.product(SCOPES, ("client", "worker")):
        for route in world.app.route_table:
            await world.make_key("narrow", kind, grants=Grants(scopes=(scope,)))  # none can change another's case
            reply = await world.call("narrow", route.method, concrete(route.path))
            refused = reply.status == 403 and reply.json["code"] == "forbidden"
            assert refused != wanted(route, kind, frozenset({scope})), (route.method, route.path, scope, reply)


async def test_another_method_is_refused_before_the_scope_is_asked(world: World) -> None:
    """405 with the methods that there are, to every key; without one 401, and 405 where no key is asked for.

    HEAD is there wherever GET is.
    """
    table = world.app.route_table
    for path in {route.path for route in table}:
        there = {route.method for route in table if route.path == path}
        there |= {"HEAD"} if "GET" in there else set()
        is_open = any(route.scope == OPEN for route in table if route.path == path)
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "PURGE"):
            if method in there:
                continue
            for who in (None, "client", "worker", "admin"):
                reply = await world.call(who, method, concrete(path))
                if who is None and not is_open:
                    assert reply.status == 401
                    continue
                assert reply.status == 405, (method, path, who)
                assert set(reply.headers["allow"].split(", ")) == there
                if method != "HEAD":
                    assert reply.json == {"error": "method not allowed", "code": "method_not_allowed"}


def test_may() -> None:
    worker = Principal("k", "o", "worker", frozenset({"jobs:lease"}))
    assert may(worker, "jobs:lease")
    assert not may(worker, "jobs:submit")
    assert not may(worker, ADMIN)
    with pytest.raises(Forbidden, match="Admin access required"):
        enforce(worker, ADMIN)
    enforce(Principal("k", "o", "admin", frozenset()), ADMIN)


# --- a table that is wrong does not start -----------------------------------------------------------------------------


async def nothing() -> None: ...


def route(scope: str | None, method: str = "GET") -> Route:
    return Route(method, "/x", scope, nothing, "x", (Answer(200, "x"),))


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ([route(None)], "the route GET /x declares no scope"),
        ([route("jobs:sumbit")], "declares an unknown scope: jobs:sumbit"),
        ([route(OPEN), route("jobs:read")], "the route GET /x is declared twice"),
    ],
)
def test_start_fails(routes: list[Route], message: str) -> None:
    with pytest.raises(StartError, match=message):
        check_routes(routes)


def test_a_good_table_passes() -> None:
    check_routes([route(OPEN), route(ADMIN, "POST"), route("jobs:read", "PUT")])


async def test_the_application_checks_its_table(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastq.http.resources.jobs.Jobs.routes", lambda _self: [route(None)])
    with pytest.raises(StartError, match="declares no scope"):
        async with world.node.serving("again"):
            pass


def test_scopes_are_those_that_keys_have_or_may_be_given() -> None:
    given = {"queues:manage", "schedules:manage", "metrics:read"}
    assert {scope for scopes in DEFAULT_SCOPES.values() for scope in scopes} | given == set(SCOPES)
