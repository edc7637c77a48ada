"""What the SDK raises. `Refused` is an answer of the server; the others are what happened to us on the way to one."""

from __future__ import annotations


class ClientError(Exception):
    """The root of all of them."""


class ServerUnreachable(ClientError):
    """No answer came, also not to the tries that followed.

    sent: the request, or a part of it, had gone out, so that it may have happened. Saying it again with the same
    idempotency key or lease token is safe.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class NotFinished(ClientError):
    """The job had not ended when the time to wait for it was over."""


class LeaseGone(ClientError):
    """Raised in a handler by `Job.check`: its job was cancelled, taken back, or its time is over."""


class ProcessFailed(ClientError):
    """A handler in a process of its own raised, or its process ended. `name` is the exception's class."""

    def __init__(self, name: str, message: str, trace: str) -> None:
        super().__init__(f"{name}: {message}" + (f"\n{trace}" if trace else ""))
        self.name, self.message = name, message


class Refused(ClientError):
    """The server answered, and not with success. Programs test `code`, people read `message`.

    status: of HTTP. state: the job's, where the answer tells it. retry_after_s: how long the server asks to wait.
    """

    def __init__(
        self, status: int, code: str, message: str, *,
        state: str = "", request_id: str = "", retry_after_s: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(f"{message} ({status} {code})")
        self.status, self.code, self.message = status, code, message
        self.state, self.request_id, self.retry_after_s = state, request_id, retry_after_s


class BadRequest(Refused):
    """400, 413, 415, 422: the message names the field and its limit."""


class Unauthenticated(Refused):
    """401: no key, or none that works."""


class Forbidden(Refused):
    """403: the key may not do this."""


class NotFound(Refused):
    """404: no such job, or one of another owner."""


class Conflict(Refused):
    """409: the job is not in a state for it."""


class LeaseLost(Conflict):
    """409 `lease_lost`: the lease ran out or was taken back, and nothing was changed."""


class Busy(Refused):
    """429, 503, 507: not now."""


BY_STATUS: dict[int, type[Refused]] = {
    400: BadRequest, 413: BadRequest, 415: BadRequest, 422: BadRequest,
    401: Unauthenticated, 403: Forbidden, 404: NotFound, 409: Conflict,
    429: Busy, 503: Busy, 507: Busy,
}  # fmt: skip
