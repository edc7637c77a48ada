"""Requests and retries without I/O.

A `Plan` is a generator. It yields a `Try` (send this request) or a `Pause` (wait). Its driver sends back an `Answer` or
a `ServerUnreachable` for each Try. The plan returns the result or raises. `Client` and `AsyncClient` are the drivers;
both use the same plans.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import msgspec

from fastq.client.errors import BY_STATUS, LeaseLost, Refused, ServerUnreachable
from fastq.client.randomness import jitter
from fastq.clock import monotonic_us

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

TRANSIENT = frozenset({408, 429, 502, 503, 504})  # worth a retry
FROM_A_PROXY = frozenset({502, 504})  # the request may have reached the server
EXPONENT_MAX = 30


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. retry_after_s: seconds, None if the header is missing."""

    status: int
    body: bytes
    retry_after_s: float | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Call(Generic[T_co]):
    """A request and the reader of its answer.

    wait_ms: the length of a long poll, milliseconds.
    repeatable: sending it twice has the effect of sending it once.
    happened: whether an error answer shows that an earlier try was applied although its answer was lost. Then the
        result is `read(b"")`.
    """

    method: str
    path: str
    read: Callable[[bytes], T_co]
    body: bytes = b""
    idempotency_key: str = ""
    wait_ms: int = 0
    repeatable: bool = True
    happened: Callable[[Refused], bool] | None = None


@dataclass(frozen=True, slots=True)
class Try:
    """Send the call and wait up to `timeout_s` seconds for its answer."""

    call: Call[object]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Retries:
    """How long a request is retried.

    for_s: seconds until the last error is raised; None: without limit. base_s, cap_s: the wait after failure n is at
    most base_s * 2 ** (n - 1) and at most cap_s seconds, or as long as the server's Retry-After. timeout_s: seconds
    for one try, plus the length of a long poll.
    """

    for_s: float | None = 60.0
    base_s: float = 0.05
    cap_s: float = 5.0
    timeout_s: float = 30.0

    def wait_s(self, failures: int) -> float:
        """Seconds to wait after that many failures, with jitter."""
        return jitter() * min(self.cap_s, self.base_s * float(1 << min(failures - 1, EXPONENT_MAX)))


Plan: TypeAlias = Generator[Try | Pause, Answer | ServerUnreachable | None, T]


def carried_out(call: Call[T], retries: Retries) -> Plan[T]:
    """Try until an answer is final. Raises Refused, ServerUnreachable."""
    begun_us, failures = monotonic_us(), 0
    in_doubt = False  # an earlier try may have been applied
    while True:
        outcome = yield Try(call, retries.timeout_s + call.wait_ms / 1000)
        failures += 1
        wait_s = retries.wait_s(failures)
        if isinstance(outcome, Answer):
            if outcome.status < 300:
                return _read(call, outcome)
            error: Refused | ServerUnreachable = refusal(outcome)
            assert isinstance(error, Refused)
            if in_doubt and call.happened is not None and call.happened(error):
                return call.read(b"")
            doubtful = error.status in FROM_A_PROXY
            if error.status not in TRANSIENT or (doubtful and not call.repeatable):
                raise error
            wait_s = wait_s if error.retry_after_s is None else max(wait_s, error.retry_after_s * (0.5 + jitter()))
        else:
            assert isinstance(outcome, ServerUnreachable), "the driver must answer each Try"
            error, doubtful = outcome, outcome.sent
            if doubtful and not call.repeatable:
                raise error
        in_doubt = in_doubt or doubtful
        if retries.for_s is not None and (monotonic_us() - begun_us) / 1e6 + wait_s > retries.for_s:
            raise error
        yield Pause(wait_s)


def _read(call: Call[T], answer: Answer) -> T:
    try:
        return call.read(answer.body)
    except msgspec.MsgspecError as error:
        message = f"the answer does not come from a fastq server: {error}"
        raise Refused(answer.status, "unknown", message, request_id=answer.request_id) from error


class _FailureBody(msgspec.Struct):
    error: str = ""
    code: str = ""
    state: str = ""


_FAILURE = msgspec.json.Decoder(_FailureBody)


def refusal(answer: Answer) -> Refused:
    """The exception for an error answer of the server, or of a proxy before it."""
    try:
        body = _FAILURE.decode(answer.body)
    except msgspec.MsgspecError:
        body = _FailureBody(error=answer.body[:200].decode(errors="replace"))
    kind = LeaseLost if body.code == "lease_lost" else BY_STATUS.get(answer.status, Refused)
    return kind(
        answer.status, body.code or "unknown", body.error or f"the server answered {answer.status}",
        state=body.state, request_id=answer.request_id, retry_after_s=answer.retry_after_s,
    )  # fmt: skip
