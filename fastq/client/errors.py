"""The exceptions of the SDK. `Refused` and its subclasses are answers of the server."""

from __future__ import annotations

import copyreg
from dataclasses import fields
from typing import Any

PLACE_CHARACTERS = 200  # of a place in a message


class ClientError(Exception):
    """The base class of the exceptions of calls and handlers.

    tries, tried_s: how often the request was sent, and how many seconds that took; 0 if it was not retried. advice:
    what to do.
    """

    advice: str = ""

    tries: int = 0
    tried_s: float = 0.0

    def given_up(self, tries: int, tried_s: float) -> None:
        """Add to the message how often and how long the request was tried, and what to do."""
        self.tries, self.tried_s = tries, tried_s
        often = "once" if tries == 1 else f"{tries} times"
        self.args = (f"{self}; tried {often} in {tried_s:.1f} s{self.advice and '; '}{self.advice}",)


class NotJSON(ValueError, TypeError):
    """A value that JSON cannot carry, or that would come back as something else. Nothing was sent.

    place: where it is, such as `payload["a"][3]`. why: what is wrong there.
    """

    def __init__(self, place: str, why: str) -> None:
        shown = place if len(place) <= PLACE_CHARACTERS else f"{place[:PLACE_CHARACTERS]}…"
        super().__init__(f"{shown}: {why}" if shown else why)
        self.place, self.why = place, why

    def within(self, outer: str) -> NotJSON:
        """The same error, for a value that is a part of `outer`."""
        return NotJSON(outer + self.place, self.why)


class ServerUnreachable(ClientError):
    """No answer came, retries included. The message says how often and how long it was tried, and what to do.

    sent: a part of a request was sent, so the server may have applied it. It is safe to repeat it with the same
    idempotency key or lease token. is_final: a retry cannot help.
    """

    def __init__(self, message: str, *, sent: bool, is_final: bool = False, advice: str = "") -> None:
        super().__init__(message)
        self.sent, self.is_final, self.advice = sent, is_final, advice


class NotFinished(ClientError):
    """The job had not ended within the timeout."""


class LeaseGone(ClientError):
    """Raised by `Job.check` in a handler: the job was cancelled, its lease is lost, or its time limit has passed."""


class ProcessFailed(ClientError):
    """A handler in a child process raised an exception, or the process ended. `name` is the exception's class."""

    def __init__(self, name: str, message: str, trace: str) -> None:
        super().__init__(f"{name}: {message}" + (f"\n{trace}" if trace else ""))
        self.name, self.message = name, message


class Interrupted(BaseException):
    """Raised in a handler that blocks the event loop, when the worker has to stop at once. Its job is released."""


class ReachedRun(BaseException):
    """Raised by `Worker.run` in a child process, which needs of the main script only what is defined before."""


class Refused(ClientError):
    """The server answered with an error.

    status: the HTTP status. code: for programs, such as `job_not_found`. message: for people. state: the job's state,
    or empty. request_id: as in the server's log. retry_after_s: seconds to wait before a retry, or None. scope: the one
    that the key lacks, or empty.
    """

    def __init__(
        self, status: int, code: str, message: str, *,
        state: str = "", request_id: str = "", retry_after_s: float | None = None, scope: str = "",
    ) -> None:  # fmt: skip
        lacks = f": the key lacks the scope {scope}" if scope else ""
        super().__init__(f"{message}{lacks} ({status} {code})")
        self.scope = scope
        self.status, self.code, self.message = status, code, message
        self.state, self.request_id, self.retry_after_s = state, request_id, retry_after_s


class BadRequest(Refused):
    """400, 413, 415, 422: the request is invalid. The message names the field and its limit."""


class Unauthenticated(Refused):
    """401: the key is missing, unknown, revoked or expired."""


class Forbidden(Refused):
    """403: the key lacks the scope."""


class NotFound(Refused):
    """404: it does not exist, or belongs to another owner."""


class Conflict(Refused):
    """409: the state does not allow it."""


class LeaseLost(Conflict):
    """409 `lease_lost`: the lease expired or was taken back. Nothing was changed."""


class Busy(Refused):
    """429, 503, 507: the server cannot accept it now. Retry later."""

    advice = "try again later, or give it more time with timeout_s"


BY_STATUS: dict[int, type[Refused]] = {
    400: BadRequest, 413: BadRequest, 415: BadRequest, 422: BadRequest,
    401: Unauthenticated, 403: Forbidden, 404: NotFound, 409: Conflict,
    429: Busy, 503: Busy, 507: Busy,
}  # fmt: skip


class Outcome(Exception):
    """The base class of the outcomes of a handler, which are dataclasses. A handler returns or raises one.

    Code that catches `Exception` lets them pass with `except fastq.Outcome: raise`.
    """

    def __post_init__(self) -> None:
        self.args = tuple(getattr(self, name) for name in self._names()[:1])

    def _names(self) -> list[str]:
        return [field.name for field in fields(self)]  # type: ignore[arg-type] # each subclass is a dataclass

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._names())

    def __hash__(self) -> int:
        return hash(type(self))

    def __reduce__(self) -> Any:
        new: Any = copyreg.__newobj__  # type: ignore[attr-defined] # its stubs do not have it
        return new, (type(self),), {**self.__dict__, "args": self.args}
