"""A path is exactly its route's bytes: no other spelling of it reaches the route."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fastq.http.paths import ExactRouter
from tests.http.wire import request_bytes
from tests.http.world import World

FIELD = "f1"


def encoded(character: str) -> str:
    return f"%{ord(character):02x}"


def spellings(path: str, literals: list[str]) -> Iterator[str]:
    """Other spellings of a path that some server or proxy takes for the same.

    Args:
        literals: the segments that are no fields.
    """
    yield from ("/" + path, "//" + path, "/." + path, "/x/.." + path, "/%2e" + path, "/x/%2e%2e" + path)
    yield from (
        path + "//",
        path + "/.",
        path + "/x/..",
        path + "%2f",
        path + "%2F",
        path + "%5c",
        path.replace("/", "\\", 1),
    )
    for at, character in enumerate(path):
        if character == "/":
            yield path[:at] + "//" + path[at + 1 :]
            yield path[:at] + "/./" + path[at + 1 :]
            for slash in ("%2f", "%2F", "%252f", "%5c", "\\", "%c0%af", "/%20", "%20/", "/%09"):
                yield path[:at] + slash + path[at + 1 :]
    for literal in literals:
        for other in (
            literal.upper(), literal.capitalize(), encoded(literal[0]) + literal[1:],
            literal[:-1] + encoded(literal[-1]),
            "".join(map(encoded, literal)), "%25" + encoded(literal[0])[1:] + literal[1:], literal + ";a=b",
            literal + ";", literal + "%00",
            literal + "%20", literal + ".", literal + "%2e", literal + "%3f", literal + "%23", literal + "\x00",
            literal + "\xe9",
            literal + "%ef%bc%8f", literal[0] + "%e2%80%8b" + literal[1:],
        ):  # fmt: skip
            yield path.replace(f"/{literal}", f"/{other}", 1)


def routed(router: ExactRouter, path: str) -> tuple[str | None, dict[str, str]]:
    request: Any = SimpleNamespace(scope={"raw_path": path.encode("latin-1"), "path": path})
    found = router.find(path, request)
    return (None, {}) if found is None else (found[3], found[2])


@pytest.fixture
def router(world: World) -> ExactRouter:
    found: Any = world.app._router
    assert isinstance(found, ExactRouter)
    return found


async def test_every_route_has_one_spelling(world: World, router: ExactRouter) -> None:
    cases = 0
    for template in {route.path for route in world.app.route_table}:
        segments = template[1:].split("/")
        path = "/" + "/".join(FIELD if segment.startswith("{") else segment for segment in segments)
        meant = template, dict.fromkeys([one[1:-1] for one in segments if one.startswith("{")], FIELD)
        assert routed(router, path) == meant
        for other in spellings(path, [segment for segment in segments if not segment.startswith("{")]):
            if other != path:
                assert routed(router, other) != meant, other
                cases += 1
    assert cases > 1000


@pytest.mark.parametrize(
    ("path", "template", "field"),
    [
        ("/jobs/a%2fack", "/jobs/{job_id}", "a/ack"),
        ("/jobs/a%252fack", "/jobs/{job_id}", "a%2fack"),
        ("/jobs/a%2fb/ack", "/jobs/{job_id}/ack", "a/b"),
        ("/jobs/..", "/jobs/{job_id}", ".."),
        ("/jobs/%6cease", "/jobs/{job_id}", "lease"),
        ("/keys/%20client_x%20", "/keys/{key}", " client_x "),
        ("/queues/caf%c3%a9", "/queues/{queue}", "caf\u00e9"),
        ("/queues/a+b", "/queues/{queue}", "a+b"),
        ("/jobs/", "/jobs/{job_id}", ""),
    ],
)
async def test_only_fields_are_decoded_and_after_the_split(
    router: ExactRouter, path: str, template: str, field: str
) -> None:
    assert routed(router, path) == (template, {template.partition("{")[2].partition("}")[0]: field})


@pytest.mark.parametrize(
    "path", ["//admin/keys", "/admin%2fkeys", "/%61dmin/keys", "/admin/keys/", "/./admin/keys", "//health", "/%68ealth"]
)
async def test_another_spelling_is_no_path(world: World, path: str) -> None:
    reply = await world.call("admin", "GET", path)
    assert (reply.status, reply.json["code"]) == (404, "path_not_found")
    assert (await world.call(None, "GET", path)).status == 401, "nobody maps the API without a key"


async def test_the_whole_url_of_a_proxy_request_is_the_path_in_it(world: World) -> None:
    wire = await world.connect()
    for target, status in (("http://test/keys", 200), ("http://test//keys", 404), ("http://test/%6beys", 404)):
        await wire.send(request_bytes("GET", target, (world.bearer("client"),)))
        assert (await wire.reply()).status == status


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "/jobs/", "job_id is required"),
        ("PATCH", "/jobs/", "job_id is required"),
        ("DELETE", "/jobs/", "job_id is required"),
        ("DELETE", "/keys/", "key is required"),
        ("DELETE", "/keys/%20", "key is required"),
        ("GET", "/queues/", "queue is required"),
        ("PUT", "/schedules/", "schedule is required"),
    ],
)
async def test_a_field_that_is_missing_is_named(world: World, method: str, path: str, message: str) -> None:
    reply = await world.call("admin", method, path, {} if method in ("PUT", "PATCH") else None)
    assert (reply.status, reply.error) == (400, message)


async def test_a_missing_field_is_no_way_around_the_scope(world: World) -> None:
    assert (await world.call("client", "GET", "/schedules/")).status == 403


async def test_space_around_a_key_in_the_path_is_cut(world: World) -> None:
    await world.make_key("second", "client", "client-owner")
    reply = await world.call("client", "DELETE", f"/keys/%20{world.secrets['second']}%09")
    assert (reply.status, reply.json["key_id"]) == (200, world.key_ids["second"])
