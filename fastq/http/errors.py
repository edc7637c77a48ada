"""Errors as answers: the status, the headers, and `{"error": "<message>", "code": "<word>"}` of each error.

Errors of other packages know nothing of HTTP. Errors that only HTTP raises are defined here.
"""

from __future__ import annotations

import logging
from typing import Any

import falcon
import falcon.asgi
import msgspec
import orjson

from fastq import errors
from fastq.errors import ApiError, InvalidRequest, Unauthenticated
from fastq.http.reply import JSON

_log = logging.getLogger("fastq.http")


# --- errors that only HTTP raises -------------------------------------------------------------------------------------


class BadHttp(ApiError):
    """The bytes of a connection are not valid HTTP, or exceed a limit. The connection is closed after the answer."""

    code = "bad_http"


class TooSlow(BadHttp):
    """A head or a body took longer than its limit."""


class UrlTooLong(BadHttp):
    pass


class HeadTooLarge(BadHttp):
    """The headers are too many or too large."""


class VersionNotSupported(BadHttp):
    def __init__(self) -> None:
        super().__init__("the HTTP version must be 1.1 or 1.0")


class BodyTooLarge(ApiError):
    code = "body_too_large"

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"the body must be at most {bytes_max} bytes")


class UnsupportedEncoding(ApiError):
    code = "unsupported_encoding"

    def __init__(self) -> None:
        super().__init__("Content-Encoding must be identity")


class PathNotFound(ApiError):
    code = "path_not_found"

    def __init__(self) -> None:
        super().__init__("path not found")


class MethodNotAllowed(ApiError):
    """`allowed`: the path's methods."""

    code = "method_not_allowed"

    def __init__(self, allowed: list[str]) -> None:
        super().__init__("method not allowed")
        self.allowed = allowed


class NoJobsAvailable(ApiError):
    """A lease without `max` found no job."""

    code = "no_jobs"

    def __init__(self) -> None:
        super().__init__("no jobs available: no jobs available")  # the original API's words


class Wrapped(ApiError):
    """An error after the words of the original API: `failed to ack job: job not found: j1`.

    Args:
        status: replaces the cause's.
    """

    def __init__(self, words: str, cause: ApiError, status: int | None = None) -> None:
        super().__init__(f"{words}: {cause}")
        self.status = status_of(cause) if status is None else status
        self.code = cause.code
        self.retry_after_s = cause.retry_after_s
        self._cause = cause

    def fields(self) -> dict[str, str]:
        return self._cause.fields()


# --- their answers ----------------------------------------------------------------------------------------------------

STATUSES: dict[type[ApiError], int] = {
    BadHttp: 400,
    InvalidRequest: 400,
    errors.NotAckable: 400,
    Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotKeyOwner: 403,
    errors.QueueForbidden: 403,
    errors.WorkersOnly: 403,
    NoJobsAvailable: 404,
    PathNotFound: 404,
    errors.JobNotFound: 404,
    errors.KeyNotFound: 404,
    errors.QueueNotFound: 404,
    errors.OperationNotFound: 404,
    errors.ScheduleNotFound: 404,
    MethodNotAllowed: 405,
    TooSlow: 408,
    errors.BackupRefused: 409,
    errors.JobDuplicate: 409,
    errors.JobFinished: 409,
    errors.JobRunning: 409,
    errors.KeyIsRevoked: 409,
    errors.LeaseLost: 409,
    errors.NameTaken: 409,
    errors.NotDead: 409,
    errors.QueueHasJobs: 409,
    errors.TooMany: 409,
    BodyTooLarge: 413,
    errors.CommandTooLarge: 413,
    UrlTooLong: 414,
    UnsupportedEncoding: 415,
    errors.IdempotencyMismatch: 422,
    errors.CleanerBehind: 429,
    errors.IdempotencyFull: 429,
    errors.OwnerFull: 429,
    errors.QueueFull: 429,
    errors.QueuesFull: 429,
    errors.RateLimited: 429,
    errors.TooManyFailures: 429,
    HeadTooLarge: 431,
    errors.RecordUnreadable: 500,
    errors.Draining: 503,
    errors.KeyStoreUnavailable: 503,
    errors.LogUnreadable: 503,
    errors.Overloaded: 503,
    errors.TooManyStreams: 503,
    VersionNotSupported: 505,
    errors.DiskFull: 507,
}


def status_of(error: ApiError) -> int:
    return error.status if isinstance(error, Wrapped) else STATUSES[type(error)]


def headers_of(error: ApiError) -> dict[str, str]:
    """Return the headers that only this error's answer has."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.allowed)
    return headers


class Failure(msgspec.Struct, forbid_unknown_fields=True):
    """An error. `code` is a stable word for programs, `error` a message for people."""

    error: str
    code: str
    state: str | msgspec.UnsetType = msgspec.UNSET
    scope: str | msgspec.UnsetType = msgspec.UNSET
    job_id: str | msgspec.UnsetType = msgspec.UNSET
    request_id: str | msgspec.UnsetType = msgspec.UNSET


def members_of(error: ApiError) -> dict[str, str]:
    """Return the members of the answer's JSON object."""
    return {"error": str(error), "code": error.code, **error.fields()}


def error_body(error: ApiError) -> bytes:
    return orjson.dumps(members_of(error))


def defect_body(request_id: str) -> bytes:
    return orjson.dumps({"error": "internal error", "code": "internal", "request_id": request_id})


# --- Falcon's handlers ------------------------------------------------------------------------------------------------


def answer_error(resp: falcon.asgi.Response, error: ApiError) -> None:
    resp.status = status_of(error)
    resp.content_type = JSON
    resp.data = error_body(error)
    for name, value in headers_of(error).items():
        resp.set_header(name, value)


async def on_api_error(req: Any, resp: falcon.asgi.Response, error: ApiError, params: Any) -> None:
    if isinstance(error, errors.RecordUnreadable | errors.LogUnreadable):
        job_id = getattr(error, "job_id", "") or (params or {}).get("job_id", "")
        _log.error(
            "%s %s failed: %s%s", req.method, req.uri_template, f"job {job_id}: " if job_id else "", error,
            extra={"request_id": req.context.request_id},
        )  # fmt: skip
    answer_error(resp, error)


def on_falcon_error(allowed_methods: dict[str, list[str]]) -> Any:
    """Make the handler of Falcon's own errors.

    Args:
        allowed_methods: the methods of each path template.
    """

    async def handle(req: falcon.asgi.Request, resp: falcon.asgi.Response, error: falcon.HTTPError, _: Any) -> None:
        if error.status_code == 404:
            answer_error(resp, PathNotFound())
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
