"""Requests and replies without I/O: what is sent, what an answer means, and what to do when none comes.

A `Plan` is a generator. It yields what its driver is to do next, a `Try` (send this) or a `Pause` (wait so long), and
is sent an `Answer` or a `ServerUnreachable` for each Try; it returns the result, or raises. The two clients are the
two drivers, one that blocks and one that awaits; the plans are the same.
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

PASSING = frozenset({408, 429, 502, 503, 504})  # what is over by itself
FROM_A_PROXY = frozenset({502, 504})  # the request may have reached the server behind it
EXPONENT_MAX = 30


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    retry_after_s: float | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Call(Generic[T_co]):
    """A request as the API has it, and how its answer is read.

    wait_ms: how long the server may take on purpose.
    repeatable: a second time changes nothing more.
    happened: whether this refusal says that an earlier try, whose answer was lost, had done it; then the result is
        `read` of an empty answer.
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
    """Send it, and give up after `timeout_s`."""

    call: Call[object]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Retries:
    """How long a call is tried, and how.

    for_s: after that the last failure is raised; None: never. The wait before try n is up to base_s * 2 ** (n - 1), at
    most cap_s, or what the server asked for. timeout_s: of one try, beyond what the server waits on purpose.
    """

    for_s: float | None = 60.0
    base_s: float = 0.05
    cap_s: float = 5.0
    timeout_s: float = 30.0

    def wait_s(self, failures: int) -> float:
        return jitter() * min(self.cap_s, self.base_s * float(1 << min(failures - 1, EXPONENT_MAX)))


Plan: TypeAlias = Generator[Try | Pause, Answer | ServerUnreachable | None, T]


def carried_out(call: Call[T], retries: Retries) -> Plan[T]:
    """Try until there is an answer that settles it. Raises Refused, ServerUnreachable."""
    begun_us, failures = monotonic_us(), 0
    in_doubt = False  # an earlier try may have happened
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
            if error.status not in PASSING or (doubtful and not call.repeatable):
                raise error
            wait_s = wait_s if error.retry_after_s is None else max(wait_s, error.retry_after_s * (0.5 + jitter()))
        else:
            assert isinstance(outcome, ServerUnreachable), "a driver answers each Try"
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
        message = f"the answer is not that of a fastq server: {error}"
        raise Refused(answer.status, "unknown", message, request_id=answer.request_id) from error


class _FailureBody(msgspec.Struct):
    error: str = ""
    code: str = ""
    state: str = ""


_FAILURE = msgspec.json.Decoder(_FailureBody)


def refusal(answer: Answer) -> Refused:
    """What an answer other than success is raised as; one that is not the server's, say a proxy's, too."""
    try:
        body = _FAILURE.decode(answer.body)
    except msgspec.MsgspecError:
        body = _FailureBody(error=answer.body[:200].decode(errors="replace"))
    kind = LeaseLost if body.code == "lease_lost" else BY_STATUS.get(answer.status, Refused)
    return kind(
        answer.status, body.code or "unknown", body.error or f"the server answered {answer.status}",
        state=body.state, request_id=answer.request_id, retry_after_s=answer.retry_after_s,
    )  # fmt: skip
