"""/openapi.json against the routes, both ways, and against what is answered and refused in fact."""

from __future__ import annotations

from typing import Any

import pytest

from fastq import commands
from fastq.http import bodies
from fastq.http.routes import ADMIN, OPEN, SCOPES
from tests.http.world import World


@pytest.fixture
async def document(world: World) -> dict[str, Any]:
    reply = await world.call(None, "GET", "/openapi.json")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    answer: dict[str, Any] = reply.json
    return answer


async def test_it_has_every_route_and_no_other(world: World, document: dict[str, Any]) -> None:
    documented = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert documented == {(route.method, route.path) for route in world.app.route_table}
    assert document["openapi"].startswith("3.1")


async def test_it_says_who_may(world: World, document: dict[str, Any]) -> None:
    for route in world.app.route_table:
        operation = document["paths"][route.path][route.method.lower()]
        statuses = set(operation["responses"])
        if route.scope == OPEN:
            assert operation["security"] == []
            assert not {"401", "403"} & statuses
        else:
            assert operation["security"] == [{"key": [] if route.scope == ADMIN else [route.scope]}]
            assert {"401", "403"} <= statuses
        assert {"400", "405", "408", "414", "431", "500", "503", "505"} <= statuses
        if route.body is not None:
            assert {"413", "415"} <= statuses


async def test_names_are_used_once_and_references_lead_somewhere(document: dict[str, Any]) -> None:
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    references = list(references_in(document))
    assert references
    for reference in references:
        at: Any = document
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]


def references_in(value: Any) -> list[str]:
    if isinstance(value, list):
        return [found for entry in value for found in references_in(entry)]
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [found for entry in value.values() for found in references_in(entry)]
    return []


LIMITS: dict[tuple[str, str], dict[str, Any]] = {
    ("SubmitBody", "max_retries"): {"minimum": 0, "maximum": commands.MAX_RETRIES_MAX},
    ("SubmitBody", "priority"): {"minimum": commands.PRIORITY_MIN, "maximum": commands.PRIORITY_MAX},
    ("SubmitBody", "delay_ms"): {"minimum": 0, "maximum": bodies.DELAY_MS_MAX},
    ("SubmitBody", "run_at"): {"format": "date-time"},
    ("SubmitBody", "payload"): {"not": {"enum": [None, ""]}},
    ("LeaseBody", "lease_ms"): {"minimum": commands.LEASE_MS_MIN, "maximum": commands.LEASE_MS_MAX},
    ("LeaseBody", "worker_id"): {"maxLength": commands.WORKER_ID_BYTES_MAX},
    ("SubmitBody", "queue"): {"pattern": "^[A-Za-z0-9._-]{1,64}$"},
    ("SubmitManyBody", "jobs"): {"minItems": 1, "maxItems": commands.BATCH_JOBS_MAX},
    ("LeaseBody", "queues"): {"minItems": 1, "maxItems": commands.QUEUES_MAX},
    ("LeaseBody", "max"): {"minimum": 1, "maximum": commands.LEASES_MAX},
    ("LeaseBody", "wait_ms"): {"minimum": 0, "maximum": commands.WAIT_MS_MAX},
    ("LeaseBody", "request_id"): {"maxLength": commands.REQUEST_ID_BYTES_MAX},
    ("ExtendBody", "lease_token"): {"maxLength": bodies.TOKEN_CHARACTERS_MAX},
    ("ExtendBody", "lease_ms"): {"minimum": commands.LEASE_MS_MIN, "maximum": commands.LEASE_MS_MAX},
    ("AckManyBody", "acks"): {"minItems": 1, "maxItems": commands.BATCH_JOBS_MAX},
    **{
        (body, field): limits
        for body in ("AckBody", "AckOneBody")
        for field, limits in {
            "lease_token": {"maxLength": bodies.TOKEN_CHARACTERS_MAX},
            "outcome": {"enum": ["ok", "error"]},
            "retry_after_ms": {"minimum": 0, "maximum": bodies.DELAY_MS_MAX},
        }.items()
    },
    ("CreateKeyBody", "name"): {"minLength": 1, "maxLength": commands.KEY_NAME_BYTES_MAX},
    ("CreateKeyBody", "owner_id"): {"minLength": 1, "maxLength": commands.OWNER_ID_BYTES_MAX},
    ("CreateKeyBody", "type"): {"enum": ["client", "worker", "admin"]},
    ("CreateKeyBody", "scopes"): {"minItems": 1, "maxItems": len(SCOPES)},
    ("CreateKeyBody", "queues"): {"minItems": 1, "maxItems": commands.KEY_QUEUES_MAX},
    ("CreateKeyBody", "rate_limit"): {"minimum": 1, "maximum": commands.KEY_RATE_MAX},
    ("CreateKeyBody", "expires_at"): {"format": "date-time"},
    ("RotateKeyBody", "overlap_ms"): {"minimum": 0, "maximum": commands.OVERLAP_MS_MAX},
}


async def test_it_states_every_limit(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for (name, field), limits in LIMITS.items():
        schema = schemas[name]["properties"][field]
        described = [schema, *schema.get("anyOf", [])]
        assert any(limits.items() <= one.items() for one in described), (name, field, schema)
    requests = {name for name in schemas if name.endswith("Body")}
    fields = {(name, field) for name in requests for field in schemas[name]["properties"]}
    free = {(body, field) for body in ("AckBody", "AckOneBody") for field in ("result", "result_error")}
    assert fields - LIMITS.keys() == free | {("AckOneBody", "job_id")}
    assert all(schemas[name]["additionalProperties"] is False for name in requests)
    assert schemas["SubmitBody"]["required"] == ["payload"]
    assert schemas["CreateKeyBody"]["required"] == ["name", "owner_id", "type"]


async def test_it_says_which_bodies_may_be_left_out(document: dict[str, Any]) -> None:
    required = {
        path: item["post"]["requestBody"]["required"]
        for path, item in document["paths"].items()
        if "requestBody" in item.get("post", {})
    }
    assert required == {
        "/jobs": True,
        "/jobs/batch": True,
        "/jobs/lease": False,
        "/jobs/ack": True,
        "/jobs/{job_id}/ack": False,
        "/jobs/{job_id}/extend": True,
        "/admin/keys": True,
        "/admin/keys/{key_id}/rotate": False,
    }
