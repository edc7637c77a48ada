"""Errors as answers: `{"error": "<message>", "code": "<word>"}`. No answer shows an internal detail."""

from __future__ import annotations

import logging
from typing import Any

import falcon
import falcon.asgi
import msgspec
import orjson

from fastq.errors import ApiError, InvalidRequest, MethodNotAllowed, PathNotFound
from fastq.http.reply import JSON

_log = logging.getLogger("fastq.http")


class Failure(msgspec.Struct, forbid_unknown_fields=True):
    """An error. `code` is a stable word for programs, `error` a message for people."""

    error: str
    code: str
    state: str | msgspec.UnsetType = msgspec.UNSET
    job_id: str | msgspec.UnsetType = msgspec.UNSET
    request_id: str | msgspec.UnsetType = msgspec.UNSET


def error_body(error: ApiError) -> bytes:
    return orjson.dumps({"error": str(error), "code": error.code, **error.fields()})


def defect_body(request_id: str) -> bytes:
    return orjson.dumps({"error": "internal error", "code": "internal", "request_id": request_id})


def answer_error(resp: falcon.asgi.Response, error: ApiError) -> None:
    resp.status = error.status
    resp.content_type = JSON
    resp.data = error_body(error)
    for name, value in error.headers().items():
        resp.set_header(name, value)


async def on_api_error(_req: Any, resp: falcon.asgi.Response, error: ApiError, _params: Any) -> None:
    answer_error(resp, error)


def on_falcon_error(allowed_methods: dict[str, list[str]]) -> Any:
    """Make the handler of Falcon's own errors.

    Args:
        allowed_methods: the methods of each path template.
    """

    async def handle(req: falcon.asgi.Request, resp: falcon.asgi.Response, error: falcon.HTTPError, _: Any) -> None:
        if error.status_code == 404:
            answer_error(resp, PathNotFound("path not found"))
        elif req.uri_template in allowed_methods and req.method not in falcon.constants.COMBINED_METHODS:
            answer_error(resp, MethodNotAllowed(allowed_methods[req.uri_template]))
        else:
            answer_error(resp, InvalidRequest(error.description or error.title or "bad request"))

    return handle


async def on_defect(req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Exception, _params: Any) -> None:
    """Answer a defect of the server with the request's id. The log has the traceback.

    The log names the route's template: a path may hold a key.
    """
    request_id = req.context.request_id
    _log.error(
        "%s %s failed", req.method, req.uri_template or "(no route)", exc_info=error, extra={"request_id": request_id}
    )
    resp.status = 500
    resp.content_type = JSON
    resp.data = defect_body(request_id)
