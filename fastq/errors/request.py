"""Errors of any request: its form, and its caller."""

from __future__ import annotations

from fastq.errors.kinds import ApiError, whole_seconds

# --- while a request is read ------------------------------------------------------------------------------------------


class InvalidRequest(ApiError):
    """The body, path or query is invalid. The message names the field and its limit."""

    status = 400
    code = "invalid_request"


class BodyTooLarge(ApiError):
    status = 413
    code = "body_too_large"


class UnsupportedEncoding(ApiError):
    status = 415
    code = "unsupported_encoding"


class PathNotFound(ApiError):
    status = 404
    code = "path_not_found"


class MethodNotAllowed(ApiError):
    status = 405
    code = "method_not_allowed"

    def __init__(self, allowed: list[str]) -> None:
        super().__init__("method not allowed")
        self.allowed = allowed

    def headers(self) -> dict[str, str]:
        return {"Allow": ", ".join(self.allowed)}


class ConnectionRefused(ApiError):
    """The bytes on a connection are not valid HTTP, or a form that is not accepted. The connection closes after it."""

    code = "bad_http"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


# --- while the caller is identified -----------------------------------------------------------------------------------


class Unauthenticated(ApiError):
    status = 401
    code = "unauthenticated"

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(ApiError):
    status = 403
    code = "forbidden"


class QueueForbidden(ApiError):
    """The key may lease, but not from this queue."""

    status = 403
    code = "queue_forbidden"

    def __init__(self, queue: str) -> None:
        super().__init__(f"queues: this key may not lease from '{queue}'")


class WorkersOnly(ApiError):
    """A client key asked for a lease while owners are isolated. The next job may be another owner's."""

    status = 403
    code = "workers_only"

    def __init__(self) -> None:
        super().__init__("a client key cannot lease: the next job may be another owner's; use a worker key")


class TooManyFailures(ApiError):
    """Too many requests from this address had an invalid key. Keys that are in use still work from there."""

    status = 429
    code = "too_many_failures"

    def __init__(self, wait_us: int) -> None:
        super().__init__("too many requests from this address came without a valid key")
        self.wait_us = wait_us

    def headers(self) -> dict[str, str]:
        return {"Retry-After": whole_seconds(self.wait_us)}


class RateLimited(ApiError):
    """The key made more requests a second than it may. Nothing was changed."""

    status = 429
    code = "rate_limited"

    def __init__(self, per_second: int, wait_us: int) -> None:
        super().__init__(f"this key may make {per_second} requests a second")
        self.wait_us = wait_us

    def headers(self) -> dict[str, str]:
        return {"Retry-After": whole_seconds(self.wait_us)}


class KeyStoreUnavailable(ApiError):
    """The key store does not answer, or was replaced. Nothing was changed. `detail` is for the server's log."""

    status = 503
    code = "key_store_unavailable"

    def __init__(self, detail: str) -> None:
        super().__init__("the key store cannot be relied on at the moment: only keys that were used lately work")
        self.detail = detail

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "2"}
