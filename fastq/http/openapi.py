"""The OpenAPI document, made from the route table and from the structs that bodies are decoded into."""

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
Jobs are submitted, leased and acked. An answer that says something changed comes after the change is on stable storage.
Times are RFC 3339 in UTC. Integers are written without a fraction
or an exponent. Unknown members of a body are refused. The last of two members with the same name counts."""

# What every route that asks for a key may answer, whatever it does.
_KEYED = (
    Answer(401, "no key, or one that is unknown or revoked", Failure),
    Answer(403, "the key may not do this", Failure),
    Answer(429, "the key made more requests a second than it may, or too many came without a valid key", Failure),
    Answer(503, "the key store does not answer, and the key was not in use lately", Failure),
)
_ANY = (
    Answer(400, "the request cannot be read", Failure),
    Answer(405, "what a method that the path does not have is answered with; Allow names those that it has", Failure),
    Answer(408, "the request's head or body did not come in time; the connection is closed", Failure),
    Answer(414, "the URL is too long; the connection is closed", Failure),
    Answer(431, "there are too many headers, or they are too large; the connection is closed", Failure),
    Answer(500, "a defect of the server; `request_id` is in its log", Failure),
    Answer(503, "overloaded: nothing was changed; Retry-After says when to try again", Failure),
    Answer(505, "the HTTP version is neither 1.1 nor 1.0; the connection is closed", Failure),
)

_REQUEST_ID = {
    "description": "The request's id: the caller's if it is sane, else made here.",
    "schema": {"type": "string"},
}


HEADERS = {
    "Idempotency-Key": {
        "description": "The same request with the same key is answered as before. In the body: `idempotency_key`.",
        "schema": {"type": "string", "minLength": 1, "maxLength": KEY_BYTES_MAX},
    },
    "traceparent": {
        "description": "W3C Trace Context; kept with the job and given to its worker. In the body: `traceparent`.",
        "schema": {"type": "string"},
    },
}


def document(routes: list[Route]) -> bytes:
    """The whole document as JSON."""
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
    """The JSON schemas of types; those that have a name are gathered in `components`."""

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
    """Of the path, the query and the headers."""
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
