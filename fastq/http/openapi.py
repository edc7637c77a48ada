"""The OpenAPI document, made from the route table and the structs of its bodies and answers."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
import orjson

from fastq.engine.commands import KEY_BYTES_MAX
from fastq.http.errors import Failure
from fastq.http.routes import ADMIN, OPEN, Answer, Route

_REF = "#/components/schemas/{name}"
_INTRODUCTION = """\
Clients submit jobs, workers lease and ack them. A success is answered after the change is on stable storage.
Times are RFC 3339 in UTC. Integers have no fraction and no exponent.
A body with an unknown member is refused. Of two members with the same name the last one counts."""

# Answers of every route with a scope.
_KEYED = (
    Answer(401, "the key is missing, unknown, expired or revoked", Failure),
    Answer(403, "the key does not have the scope that the route needs", Failure),
    Answer(429, "the key exceeds its rate limit, or too many requests came without a valid key", Failure),
    Answer(503, "the key store does not answer, and the key is not cached", Failure),
)
_ANY = (
    Answer(400, "the request is malformed", Failure),
    Answer(405, "the path does not have the method; Allow names those that it has", Failure),
    Answer(408, "the request's head or body did not arrive in time; the connection is closed", Failure),
    Answer(414, "the URL is too long; the connection is closed", Failure),
    Answer(431, "the headers are too many or too large; the connection is closed", Failure),
    Answer(500, "a defect of the server; its log names `request_id`", Failure),
    Answer(503, "the server is overloaded; nothing was changed; retry after Retry-After seconds", Failure),
    Answer(505, "the HTTP version is neither 1.1 nor 1.0; the connection is closed", Failure),
)

_REQUEST_ID = {
    "description": "The request's id: the caller's if it is well-formed, else the server's.",
    "schema": {"type": "string"},
}


HEADERS = {
    "Idempotency-Key": {
        "description": "A repeated request with the same key gets the first answer. In the body: `idempotency_key`.",
        "schema": {"type": "string", "minLength": 1, "maxLength": KEY_BYTES_MAX},
    },
    "traceparent": {
        "description": "W3C Trace Context, stored with the job and given to its worker. In the body: `traceparent`.",
        "schema": {"type": "string"},
    },
    "Last-Event-ID": {
        "description": "The id of the last event that the client has. It gets the changes since, of the last 1,000.",
        "schema": {"type": "string"},
    },
}


def document(routes: list[Route]) -> bytes:
    """Return the document as JSON."""
    schemas = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "fastq", "version": _version(), "description": _INTRODUCTION},
            "paths": paths,
            "components": {
                "schemas": schemas.components,
                "headers": {"X-Request-Id": _REQUEST_ID},
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}},
            },
        }
    )


class _Schemas:
    """The JSON schemas of types. `components` has the schemas of structs, by name."""

    def __init__(self, types: list[Any]) -> None:
        found, self.components = msgspec.json.schema_components(types, ref_template=_REF)
        self._types = types
        self._found = found

    def of(self, type_: Any) -> dict[str, Any]:
        return self._found[self._types.index(type_)]


def _schemas(routes: list[Route]) -> _Schemas:
    types: list[Any] = [Failure]
    for route in routes:
        for wanted in (route.body, *(schema for answer in route.answers for schema in answer.schemas)):
            if wanted is not None and wanted not in types:
                types.append(wanted)
    return _Schemas(types)


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    answers = {answer.status: answer for answer in _ANY}
    if route.scope != OPEN:
        answers |= {answer.status: answer for answer in _KEYED}
    answers |= {answer.status: answer for answer in route.answers}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.responder.__name__ + "_" + route.path.strip("/").split("/")[0].partition(".")[0],
        "responses": {str(status): _response(answers[status], schemas) for status in sorted(answers)},
    }
    if parameters := _parameters(route):
        operation["parameters"] = parameters
    if route.scope == OPEN:
        operation["security"] = []
    else:
        operation["security"] = [{"key": [] if route.scope == ADMIN else [route.scope]}]
        operation["x-scope"] = route.scope
    if route.body is not None:
        operation["requestBody"] = {
            "required": not route.body_optional,
            "content": {"application/json": {"schema": schemas.of(route.body)}},
        }
        if route.example is not None:
            operation["requestBody"]["content"]["application/json"]["example"] = route.example
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    """Return the parameters in the path, the query and the headers."""
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in route.path_fields
    ]
    if route.query is not None:
        (schema,), components = msgspec.json.schema_components([route.query])
        found = components[schema["$ref"].rpartition("/")[2]]
        for name, described in found["properties"].items():
            text = described.pop("description", None)
            parameter = {
                "name": name,
                "in": "query",
                "required": name in found.get("required", []),
                "schema": described,
            }
            parameters.append(parameter | ({"description": text} if text else {}))
    parameters += [{"name": name, "in": "header", "required": False, **HEADERS[name]} for name in route.headers]
    return parameters


def _response(answer: Answer, schemas: _Schemas) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": answer.meaning,
        "headers": {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}},
    }
    if answer.schemas:
        found = [schemas.of(schema) for schema in answer.schemas]
        response["content"] = {"application/json": {"schema": found[0] if len(found) == 1 else {"anyOf": found}}}
    elif answer.media_type is not None:
        response["content"] = {answer.media_type: {}}
    elif answer.text is not None:
        response["content"] = {"text/plain": {"schema": {"type": "string", "const": answer.text}}}
    return response


def _version() -> str:
    try:
        return version("fastq-queue")
    except PackageNotFoundError:
        return "0"
