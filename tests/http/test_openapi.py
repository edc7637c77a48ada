"""/openapi.json against the routes, both ways, and against what is answered and refused in fact."""

from __future__ import annotations

from typing import Any

import pytest

from fastq._core import FINISHED
from fastq.engine import commands
from fastq.http import fields
from fastq.http.resources import bulk
from fastq.http.routes import ADMIN, OPEN, SCOPES
from fastq.services import cron, queues, schedule
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


async def test_it_says_which_scope_each_route_needs(world: World, document: dict[str, Any]) -> None:
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


COUNT = {"minimum": 1, "maximum": queues.COUNT_MAX}
# What is true or false, or a struct of its own.
UNLIMITED = {
    *(("QueueBody", name) for name in ("paused", "fair", "rate_limit", "backoff", "retention")),
    *(("BulkBody", name) for name in ("filter", "dry_run")),
}
ACK_LIMITS: dict[str, dict[str, Any]] = {
    "lease_token": {"maxLength": fields.TOKEN_CHARACTERS_MAX},
    "outcome": {"enum": ["ok", "error", "discard", "snooze", "release"]},
    "retry_after_ms": {"minimum": 0, "maximum": fields.DELAY_MS_MAX},
    "delay_ms": {"minimum": 0, "maximum": fields.DELAY_MS_MAX},
    "error_code": {"minLength": 1, "maxLength": commands.ERROR_CODE_BYTES_MAX},
}
LIMITS: dict[tuple[str, str], dict[str, Any]] = {
    ("SubmitBody", "max_retries"): {"minimum": 0, "maximum": commands.MAX_RETRIES_MAX},
    ("SubmitBody", "priority"): {"minimum": commands.PRIORITY_MIN, "maximum": commands.PRIORITY_MAX},
    ("SubmitBody", "delay_ms"): {"minimum": 0, "maximum": fields.DELAY_MS_MAX},
    ("SubmitBody", "run_at"): {"format": "date-time"},
    ("SubmitBody", "payload"): {"not": {"enum": [None, ""]}},
    ("LeaseBody", "lease_ms"): {"minimum": commands.LEASE_MS_MIN, "maximum": commands.LEASE_MS_MAX},
    ("LeaseBody", "worker_id"): {"maxLength": commands.WORKER_ID_BYTES_MAX},
    ("SubmitBody", "queue"): {"pattern": "^[A-Za-z0-9._-]{1,64}$"},
    ("SubmitManyBody", "jobs"): {"maxItems": commands.BATCH_JOBS_MAX},
    ("LeaseBody", "queues"): {"minItems": 1, "maxItems": commands.QUEUES_MAX},
    ("LeaseBody", "max"): {"minimum": 1, "maximum": commands.LEASES_MAX},
    ("LeaseBody", "wait_ms"): {"minimum": 0, "maximum": commands.WAIT_MS_MAX},
    ("LeaseBody", "request_id"): {"maxLength": commands.REQUEST_ID_BYTES_MAX},
    **{
        (body, field): {"minLength": 1, "maxLength": commands.KEY_BYTES_MAX}
        for body, field in (("SubmitBody", "idempotency_key"), ("SubmitBody", "unique_key"))
    },
    ("SubmitBody", "group"): {"pattern": "^[A-Za-z0-9._-]{1,64}$"},
    ("SubmitBody", "lease_ms"): {"minimum": commands.LEASE_MS_MIN, "maximum": commands.LEASE_MS_MAX},
    ("SubmitBody", "expires_ms"): {"minimum": 1, "maximum": fields.DELAY_MS_MAX},
    ("SubmitBody", "expires_at"): {"format": "date-time"},
    ("SubmitBody", "on_duplicate"): {"enum": ["keep", "replace"]},
    ("SubmitBody", "tags"): {"maxItems": commands.TAGS_MAX},
    ("SubmitBody", "traceparent"): {"pattern": f"^{fields.TRACEPARENT_PATTERN}$"},
    ("HeartbeatBody", "worker_id"): {"maxLength": commands.WORKER_ID_BYTES_MAX},
    ("HeartbeatBody", "leases"): {"maxItems": commands.LEASES_EXTENDED_MAX},
    ("HeartbeatBody", "host"): {"minLength": 1, "maxLength": fields.HOST_BYTES_MAX},
    ("HeartbeatBody", "version"): {"minLength": 1, "maxLength": fields.VERSION_BYTES_MAX},
    ("HeartbeatBody", "lease_ms"): {"minimum": commands.LEASE_MS_MIN, "maximum": commands.LEASE_MS_MAX},
    ("ProgressBody", "percent"): {"minimum": 0, "maximum": 100},
    ("ProgressBody", "note"): {"maxLength": commands.NOTE_BYTES_MAX},
    ("TransactionBody", "ops"): {"maxItems": commands.OPS_MAX},
    ("EditBody", "payload"): {"not": {"enum": [None, ""]}},
    ("EditBody", "priority"): {"minimum": commands.PRIORITY_MIN, "maximum": commands.PRIORITY_MAX},
    ("EditBody", "delay_ms"): {"minimum": 0, "maximum": fields.DELAY_MS_MAX},
    ("EditBody", "run_at"): {"format": "date-time"},
    ("EditBody", "queue"): {"pattern": "^[A-Za-z0-9._-]{1,64}$"},
    ("ResubmitBody", "priority"): {"minimum": commands.PRIORITY_MIN, "maximum": commands.PRIORITY_MAX},
    ("ResubmitBody", "delay_ms"): {"minimum": 0, "maximum": fields.DELAY_MS_MAX},
    ("ResubmitBody", "run_at"): {"format": "date-time"},
    ("ResubmitBody", "queue"): {"pattern": "^[A-Za-z0-9._-]{1,64}$"},
    ("ResubmitBody", "max_retries"): {"minimum": 0, "maximum": commands.MAX_RETRIES_MAX},
    **{
        (body, "lease_token"): {"maxLength": fields.TOKEN_CHARACTERS_MAX}
        for body in ("ExtendBody", "ExtendOneBody", "LeaseHeldBody", "ProgressBody")
    },
    **{
        (body, "lease_ms"): {"minimum": commands.LEASE_MS_MIN, "maximum": commands.LEASE_MS_MAX}
        for body in ("ExtendBody", "ExtendOneBody")
    },
    ("AckManyBody", "acks"): {"maxItems": commands.BATCH_JOBS_MAX},
    **{(body, field): limits for body in ("AckBody", "AckOneBody") for field, limits in ACK_LIMITS.items()},
    ("BackoffBody", "base_ms"): {"minimum": 1, "maximum": 86_400_000},
    ("BackoffBody", "factor"): {"minimum": 1, "maximum": 100},
    ("BackoffBody", "cap_ms"): {"minimum": 1, "maximum": 30 * 86_400_000},
    ("CreateKeyBody", "name"): {"minLength": 1, "maxLength": commands.KEY_NAME_BYTES_MAX},
    ("CreateKeyBody", "owner_id"): {"minLength": 1, "maxLength": commands.OWNER_ID_BYTES_MAX},
    ("CreateKeyBody", "type"): {"enum": ["client", "worker", "admin"]},
    **{("QueueBody", name): COUNT for name in ("concurrency", "group_concurrency", "max_depth")},
    ("QueueBody", "lease_ms"): {"minimum": commands.LEASE_MS_MIN, "maximum": commands.LEASE_MS_MAX},
    ("QueueBody", "pause_reason"): {"minLength": 1, "maxLength": queues.PAUSE_REASON_BYTES_MAX},
    ("QueueBody", "pause_until"): {"format": "date-time"},
    ("PauseBody", "reason"): {"minLength": 1, "maxLength": queues.PAUSE_REASON_BYTES_MAX},
    ("PauseBody", "until"): {"format": "date-time"},
    ("RateLimitBody", "n"): {"minimum": 1, "maximum": queues.RATE_MAX},
    ("RateLimitBody", "per_ms"): {"minimum": 1, "maximum": queues.DAY_MS},
    **{("RetentionBody", name): {"minimum": 0, "maximum": 10 * queues.YEAR_MS} for name in ("acked_ms", "dead_ms")},
    ("RetentionBody", "max"): {"minimum": 0, "maximum": queues.COUNT_MAX},
    ("ScheduleBody", "cron"): {"minLength": 1, "maxLength": cron.CRON_CHARACTERS_MAX},
    ("ScheduleBody", "every_ms"): {"minimum": 1_000, "maximum": 366 * 86_400_000},
    ("ScheduleBody", "timezone"): {"maxLength": cron.ZONE_CHARACTERS_MAX},
    ("ScheduleBody", "job"): {"type": "object", "required": ["payload"]},
    ("ScheduleBody", "catch_up"): {"enum": ["all", "one", "skip"]},
    ("ScheduleBody", "catch_up_max"): {"minimum": 1, "maximum": schedule.CATCH_UP_MAX},
    ("ScheduleBody", "overlap"): {"enum": ["allow", "skip"]},
    ("JobFilterBody", "state"): {"enum": sorted(["SCHEDULED", "READY", "RUNNING", "RETRY", *FINISHED])},
    ("JobFilterBody", "queue"): {"pattern": "^[A-Za-z0-9._-]{1,64}$"},
    ("JobFilterBody", "group"): {"pattern": "^[A-Za-z0-9._-]{1,64}$"},
    ("JobFilterBody", "tag"): {"maxLength": bulk.TAG_CHARACTERS_MAX},
    ("JobFilterBody", "q"): {"minLength": 1, "maxLength": bulk.TEXT_BYTES_MAX},
    ("JobFilterBody", "error"): {"minLength": 1, "maxLength": bulk.TEXT_BYTES_MAX},
    ("JobFilterBody", "error_code"): {"minLength": 1, "maxLength": commands.ERROR_CODE_BYTES_MAX},
    ("JobFilterBody", "worker"): {"minLength": 1, "maxLength": commands.WORKER_ID_BYTES_MAX},
    ("JobFilterBody", "since"): {"format": "date-time"},
    **{(body, "pace_per_s"): {"minimum": 1, "maximum": bulk.PACE_MAX} for body in ("BulkBody", "PaceBody")},
    **{(body, "work_ms"): {"minimum": 1, "maximum": 20_000} for body in ("BulkBody", "PaceBody")},
    **{(body, "cursor"): {"maxLength": bulk.CURSOR_CHARACTERS_MAX} for body in ("BulkBody", "PaceBody")},
    ("JobFilterBody", "ids"): {"maxItems": bulk.IDS_MAX},
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
    names = {(body, "job_id") for body in ("AckOneBody", "ExtendOneBody", "LeaseHeldBody")}
    ops = {("OpBody", name) for name in ("ack", "submit", "extend")}
    nested = {("SubmitBody", "backoff"), ("CancelBody", "force")}
    assert fields - LIMITS.keys() == free | UNLIMITED | names | ops | nested
    assert all(schemas[name]["additionalProperties"] is False for name in requests)
    assert schemas["SubmitBody"]["required"] == ["payload"]
    assert schemas["CreateKeyBody"]["required"] == ["name", "owner_id", "type"]


async def test_it_says_which_bodies_are_optional(document: dict[str, Any]) -> None:
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
        "/jobs/{job_id}/cancel": False,
        "/jobs/{job_id}/resubmit": False,
        "/jobs/{job_id}/progress": True,
        "/workers/heartbeat": True,
        "/transactions": True,
        "/jobs/cancel": True,
        "/jobs/redrive": True,
        "/jobs/delete": True,
        "/queues/{queue}/pause": False,
        "/queues/{queue}/purge": False,
        "/admin/keys": True,
        "/admin/keys/{key_id}/rotate": False,
    }
    for path in ("/queues/{queue}", "/schedules/{schedule}"):
        assert document["paths"][path]["put"]["requestBody"]["required"] is True


async def test_examples_are_accepted(world: World) -> None:
    """Each example of a body does what its route is for."""
    examples = [(route, route.example) for route in world.app.route_table if route.example is not None]
    assert {route.path for route, _ in examples} >= {"/queues/{queue}", "/schedules/{schedule}", "/jobs/cancel"}
    for route, example in examples:
        reply = await world.call("admin", route.method, route.path.replace("{", "").replace("}", ""), example)
        assert reply.status in (200, 201), (route.path, reply.body)


async def test_query_parameters_are_in_the_document(document: dict[str, Any]) -> None:
    parameters = {item["name"]: item for item in document["paths"]["/queues"]["get"]["parameters"]}
    assert parameters["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 1000}
    assert parameters["cursor"]["in"] == "query"
    assert parameters["cursor"]["required"] is False
