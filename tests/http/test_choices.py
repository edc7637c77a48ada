"""A field or parameter that must be one of some words: the error lists them, whatever the field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from msgspec import inspect

from fastq._core import ACK_OUTCOMES, STATES
from fastq.http.routes import Route
from tests.http.world import World

BAD = "Ready"  # a state but for its case; no word of any list
PATH = {"job_id": "x", "queue": "mail", "schedule": "s", "key": "k", "key_id": "k"}
SCHEDULE = {"cron": "* * * * *", "job": {"payload": 1}}
WHOLE: dict[str, dict[str, Any]] = {  # the other members that a body needs
    "/jobs": {"payload": 1, "unique_key": "u"}, "/schedules/{schedule}": SCHEDULE, "/admin/keys": {"name": "n",
    "owner_id": "o"},
}  # fmt: skip


def alternatives(kind: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(kind, inspect.Metadata):
        schema = kind.extra_json_schema or {}
        if "enum" in schema:
            yield inspect.LiteralType(tuple(schema["enum"]))
        yield from alternatives(kind.type)
    elif isinstance(kind, inspect.UnionType):
        for one in kind.types:
            yield from alternatives(one)
    elif isinstance(kind, inspect.ListType | inspect.VarTupleType):
        for one in alternatives(kind.item_type):
            yield from [inspect.ListType(one)] if isinstance(one, inspect.LiteralType) else []
    else:
        yield kind


def choices(
    struct: type[msgspec.Struct], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], bool, list[str]]]:
    """(where it stands, whether in a list, the words) of each field that has a list of words."""
    found = inspect.type_info(struct)
    assert isinstance(found, inspect.StructType)
    for field in found.fields:
        for kind in alternatives(field.type):
            here = (*path, field.encode_name)
            if isinstance(kind, inspect.LiteralType):
                yield here, False, [str(value) for value in kind.values]
            elif isinstance(kind, inspect.ListType) and isinstance(kind.item_type, inspect.LiteralType):
                yield here, True, [str(value) for value in kind.item_type.values]
            elif isinstance(kind, inspect.StructType) and len(path) < 2:
                yield from choices(kind.cls, here)


def cases(routes: list[Route]) -> Iterator[tuple[Route, str, tuple[str, ...], bool, list[str]]]:
    for route in routes:
        for part, struct in (("query", route.query), ("body", route.body)):
            if struct is not None:
                for path, in_list, words in choices(struct):
                    yield route, part, path, in_list, words


async def test_every_list_of_words_is_told(world: World) -> None:
    seen = set()
    for route, part, path, in_list, words in cases(world.app.route_table):
        url = route.path.format_map(PATH)
        body: Any = None
        if part == "query":
            url += f"?{path[0]}={quote(BAD)}"
        else:
            body = [BAD] if in_list else BAD
            for name in reversed(path[1:]):
                body = {name: body}
            body = WHOLE.get(route.path, {}) | {path[0]: body}
            if path[0] != "type" and route.path == "/admin/keys":
                body["type"] = "client"
        reply = await world.call("admin", route.method, url, body)
        what = (route.method, url, body, reply.body)
        assert reply.status == 400, what
        assert path[-1] in reply.error, what
        assert all(word in reply.error for word in words), what
        seen.add(path)
    assert {
        ("state",),
        ("filter", "state"),
        ("overlap",),
        ("catch_up",),
        ("on_duplicate",),
        ("scopes",),
        ("type",),
    } <= seen


@pytest.mark.parametrize("query", ["state=ready", "state=", "state=READY,DEAD", "state=%00", "state=FINISHED"])
async def test_states_are_listed(world: World, query: str) -> None:
    error = (await world.call("client", "GET", f"/jobs?{query}")).error
    assert error.startswith("state must be ")
    assert all(state in error for state in STATES)


async def test_outcomes_are_listed(world: World) -> None:
    reply = await world.call("worker", "POST", "/jobs/x/ack", {"outcome": "OK"})
    assert all(word in reply.error for word in ACK_OUTCOMES)
