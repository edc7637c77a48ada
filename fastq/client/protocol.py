"""Requests and retries without I/O.

A `Plan` is a generator. It yields a `Try` (send this request) or a `Pause` (wait). Its driver sends back an `Answer` or
a `ServerUnreachable` for each Try. The plan returns the result or raises. `Client` and `AsyncClient` are the drivers;
both use the same plans.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Generic, TypeAlias, TypeVar

import msgspec

from fastq.client.errors import BY_STATUS, LeaseLost, NotFound, Refused, ServerUnreachable
from fastq.client.randomness import jitter
from fastq.clock import monotonic_us

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

TRANSIENT = frozenset({408, 429, 502, 503, 504})  # worth a retry
FROM_A_PROXY = frozenset({502, 504})  # the request may have reached the server
EXPONENT_MAX = 30
TRY_S_MIN = 0.01
ANSWER_S = 0.5  # an answer may come that much after `until_us`: a long poll ends then


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer.

    retry_after_s: seconds, None if the header is missing. cursor: of the next page, from the header Link; or empty.
    """

    status: int
    body: bytes
    retry_after_s: float | None = None
    request_id: str = ""
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class Call(Generic[T_co]):
    """A request and the reader of its answer.

    wait_ms: the length of a long poll, milliseconds.
    is_slow: one try may take `Retries.timeout_s`, even if that is longer than `Retries.for_s`.
    repeatable: sending it twice has the effect of sending it once.
    happened: whether an error answer shows that an earlier try was applied although its answer was lost. Then the
        result is `read(b"")`.
    of_old: the result, made from what was read, if the server answered 200: it has stored nothing new, and no earlier
        try of this call can have. It is an earlier call's.
    of_page: the result, made from what was read and the cursor of the next page, if the header Link has it.
    """

    method: str
    path: str
    read: Callable[[bytes], T_co]
    body: bytes = b""
    idempotency_key: str = ""
    wait_ms: int = 0
    is_slow: bool = False
    repeatable: bool = True
    happened: Callable[[Refused], bool] | None = None
    of_old: Callable[[T_co], T_co] | None = None
    of_page: Callable[[T_co, str], T_co] | None = None


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
    """How long a request is tried.

    for_s: seconds until a call gives up, all tries and waits included, after its first failure if it is a long poll; 0:
    one try; None: without limit. base_s, cap_s: the wait after failure n is at most base_s * 2 ** (n - 1) and at most
    cap_s seconds, or as long as the server's Retry-After. timeout_s: seconds for one try, and the length of a long poll
    more.
    """

    for_s: float | None = 10.0
    base_s: float = 0.05
    cap_s: float = 5.0
    timeout_s: float = 30.0

    def wait_s(self, failures: int) -> float:
        """Seconds to wait after that many failures, with jitter."""
        return jitter() * min(self.cap_s, self.base_s * float(1 << min(failures - 1, EXPONENT_MAX)))

    def once(self) -> Retries:
        """The same for one try."""
        return replace(self, for_s=0.0, timeout_s=min(self.timeout_s, self.for_s or self.timeout_s))


WAITING = Retries(for_s=60.0)
"""A wait for a job's end outlasts a restart of the server."""


def retries_of(timeout_s: float | None, retries: Retries | None) -> Retries:
    """`retries`, default `Retries()`; with `timeout_s` a call gives up after that time. Raises ValueError."""
    retries = retries or Retries()
    if timeout_s is None:
        return retries
    if not timeout_s > 0:
        raise ValueError(f"timeout_s must be > 0 seconds, not {timeout_s}")
    return replace(retries, for_s=timeout_s, timeout_s=min(timeout_s, retries.timeout_s))


Plan: TypeAlias = Generator[Try | Pause, Answer | ServerUnreachable | None, T]


def carried_out(call: Call[T], retries: Retries, until_us: int | None = None) -> Plan[T]:
    """Try until an answer is final. Raises Refused, ServerUnreachable.

    until_us: a monotonic time; no try begins after it, whatever `retries` say.
    """
    begun_us, failures = monotonic_us(), 0
    in_doubt = False  # an earlier try may have been applied
    last_us = _last_us(begun_us, retries, until_us)  # of a long poll: counted from its first failure
    while True:
        outcome = yield Try(call, _try_s(call, retries, last_us, until_us))
        failures += 1
        now_us, wait_s = monotonic_us(), retries.wait_s(failures)
        if failures == 1 and call.wait_ms:
            last_us = _last_us(now_us, retries, until_us)
        if isinstance(outcome, Answer):
            if outcome.status < 300:
                result = _read(call, outcome)
                is_old = outcome.status == 200 and not in_doubt
                return call.of_old(result) if is_old and call.of_old is not None else result
            error: Refused | ServerUnreachable = refusal(outcome)
            assert isinstance(error, Refused)
            if in_doubt and call.happened is not None and call.happened(error):
                return call.read(b"")
            doubtful = error.status in FROM_A_PROXY
            is_final = error.status not in TRANSIENT or (doubtful and not call.repeatable)
            if is_final and failures == 1:
                raise error
            wait_s = wait_s if error.retry_after_s is None else max(wait_s, error.retry_after_s * (0.5 + jitter()))
        else:
            assert isinstance(outcome, ServerUnreachable), "the driver must answer each Try"
            error, doubtful = outcome, outcome.sent
            is_final = outcome.is_final or (doubtful and not call.repeatable)
            error.sent = doubtful or in_doubt
        in_doubt = in_doubt or doubtful
        if is_final or (last_us is not None and now_us + wait_s * 1e6 > last_us):
            error.given_up(failures, (now_us - begun_us) / 1e6)
            raise error
        yield Pause(wait_s)


def _last_us(from_us: int, retries: Retries, until_us: int | None) -> int | None:
    """When a call gives up that is tried from `from_us` on. None: never."""
    if retries.for_s is None:
        return until_us
    last_us = from_us + int(retries.for_s * 1e6)
    return last_us if until_us is None else min(last_us, until_us)


def _try_s(call: Call[object], retries: Retries, last_us: int | None, until_us: int | None) -> float:
    """Seconds for the next try. Without retries it has the whole `timeout_s`."""
    try_s = retries.timeout_s
    if retries.for_s and last_us is not None and not call.is_slow:
        try_s = min(try_s, retries.for_s if call.wait_ms else (last_us - monotonic_us()) / 1e6)
    try_s += call.wait_ms / 1000
    if until_us is not None:
        try_s = min(try_s, (until_us - monotonic_us()) / 1e6 + ANSWER_S)
    return max(try_s, TRY_S_MIN)


def _read(call: Call[T], answer: Answer) -> T:
    try:
        result = call.read(answer.body)
    except msgspec.MsgspecError as error:
        message = f"the answer does not come from a fastq server: {error}"
        raise Refused(answer.status, "unknown", message, request_id=answer.request_id) from error
    return call.of_page(result, answer.cursor) if call.of_page is not None else result


class _FailureBody(msgspec.Struct):
    error: str = ""
    code: str = ""
    state: str = ""
    scope: str = ""


_FAILURE = msgspec.json.Decoder(_FailureBody)


def refusal(answer: Answer) -> Refused:
    """The exception for an error answer of the server, or of a proxy before it."""
    kind: type[Refused] = BY_STATUS.get(answer.status, Refused)
    try:
        body = _FAILURE.decode(answer.body)
    except msgspec.MsgspecError:
        text = answer.body[:200].decode(errors="replace")
        body = _FailureBody(error=f"the answer does not come from a fastq server, check the URL: {text!r}")
        kind = Refused if kind is NotFound else kind
    if body.code == "lease_lost":
        kind = LeaseLost
    return kind(
        answer.status, body.code or "unknown", body.error or f"the server answered {answer.status}",
        state=body.state, request_id=answer.request_id, retry_after_s=answer.retry_after_s,
        scope=body.scope,
    )  # fmt: skip
