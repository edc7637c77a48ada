"""Errors of a request, whatever it asks for: how it is written, and who sends it."""

from __future__ import annotations

from fastq.errors.roots import ApiError


class InvalidRequest(ApiError):
    """A field is not what the command takes. The message names the field and its limit."""

    code = "invalid_request"


class CommandTooLarge(ApiError):
    """A command's records do not fit into one frame of the log, however long it waits."""

    code = "body_too_large"

    def __init__(self, record_bytes: int, record_bytes_max: int) -> None:
        super().__init__(
            f"the request takes up to {record_bytes} bytes in the log, above {record_bytes_max}: send less at once"
        )


# --- while the caller is identified -----------------------------------------------------------------------------------


class Unauthenticated(ApiError):
    """There is no key, or none that is good."""

    code = "unauthenticated"


class Forbidden(ApiError):
    """The key lacks a scope, or is not an admin key."""

    code = "forbidden"

    def __init__(self, message: str, scope: str = "") -> None:
        super().__init__(message)
        self.scope = scope

    def fields(self) -> dict[str, str]:
        return {"scope": self.scope} if self.scope else {}


class QueueForbidden(ApiError):
    """The key is bound to other queues than this one."""

    code = "queue_forbidden"

    def __init__(self, queue: str, refused: str = "lease from") -> None:
        super().__init__(f"queues: this key may not {refused} '{queue}'")


class WorkersOnly(ApiError):
    """A client key asked for a lease while owners are isolated."""

    code = "workers_only"

    def __init__(self) -> None:
        super().__init__("a client key cannot lease: the next job may be another owner's; use a worker key")


class TooManyFailures(ApiError):
    """Too many requests from this address had a wrong key. Keys that are in use still work from there."""

    code = "too_many_failures"

    def __init__(self, wait_us: int) -> None:
        super().__init__("too many requests from this address came without a valid key: try again later")
        self.retry_after_s = _whole_seconds(wait_us)


class RateLimited(ApiError):
    """The key made more requests a second than its limit."""

    code = "rate_limited"

    def __init__(self, per_second: int, wait_us: int) -> None:
        super().__init__(f"this key may make {per_second} requests a second: send fewer")
        self.retry_after_s = _whole_seconds(wait_us)


class KeyStoreUnavailable(ApiError):
    """The key store does not answer, or is another one than before. `detail` is for our log."""

    code = "key_store_unavailable"
    retry_after_s = 2

    def __init__(self, detail: str) -> None:
        super().__init__("the key store is unavailable: until it is back, only keys that were used recently work")
        self.detail = detail


def _whole_seconds(wait_us: int) -> int:
    return max(1, -(-wait_us // 1_000_000))
