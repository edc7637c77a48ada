"""Plans, driven by hand with answers and failures; HTTP parsed from bytes."""

from __future__ import annotations

from typing import Any

import pytest

from fastq import Busy, ClientError, Conflict, LeaseLost, NotFinished, Page, Refused, Retries, ServerUnreachable
from fastq.client import calls, operator_calls, protocol
from fastq.client.protocol import TRY_S_MIN, Answer, Call, Pause, Try, carried_out, refusal
from fastq.client.wire import Address, Reply

LOST = ServerUnreachable("lost", sent=True)
NEVER_SENT = ServerUnreachable("refused", sent=False)
OK = Answer(200, b"{}")
QUICK = Retries(base_s=0.01, cap_s=0.04, for_s=60)


def call(**fields: Any) -> Call[str]:
    return Call("POST", "/x", lambda body: body.decode() or "again", **fields)


def drive(plan: Any, *outcomes: Answer | ServerUnreachable) -> tuple[Any, list[float]]:
    """Drive a plan. Returns its result or exception, and its pauses in seconds."""
    pauses: list[float] = []
    left = list(outcomes)
    step = next(plan)
    try:
        while True:
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                step = plan.send(None)
            else:
                assert isinstance(step, Try)
                step = plan.send(left.pop(0))
    except StopIteration as end:
        assert not left
        return end.value, pauses
    except ClientError as error:
        assert not left
        return error, pauses


def failure(status: int, code: str, **fields: Any) -> Answer:
    return Answer(status, f'{{"error":"why","code":"{code}","state":"CANCELLED"}}'.encode(), **fields)


@pytest.mark.parametrize("outcome", [LOST, NEVER_SENT, failure(503, "draining"), failure(429, "x"), Answer(502, b"")])
def test_transient_failures_are_retried(outcome: Any) -> None:
    value, pauses = drive(carried_out(call(), QUICK), *[outcome] * 8, OK)
    assert value == "{}"
    assert len(pauses) == 8
    assert pauses[0] <= 0.01 and 0.02 <= pauses[7] <= 0.04


def test_retry_after_sets_the_wait() -> None:
    _, pauses = drive(carried_out(call(), QUICK), failure(429, "x", retry_after_s=3.0), OK)
    assert 3.0 <= pauses[0] < 4.5


def test_retries_end_after_for_s() -> None:
    error, pauses = drive(carried_out(call(), Retries(for_s=2)), failure(429, "queue_full", retry_after_s=3.0))
    assert isinstance(error, Busy) and error.code == "queue_full"
    assert pauses == []


@pytest.mark.parametrize("try_s", [0.0, 0.05, 0.7])
def test_no_try_begins_after_the_time(try_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A try has the time that is left; the error tells the time that all of them took."""
    now_us = 0
    monkeypatch.setattr(protocol, "monotonic_us", lambda: now_us)
    plan = carried_out(call(), Retries(for_s=0.6))
    begun_us: list[int] = []
    error: ServerUnreachable | None = None
    step: Try | Pause = next(plan)
    while error is None:
        try:
            if isinstance(step, Try):
                begun_us.append(now_us)
                assert step.timeout_s <= max((600_000 - now_us) / 1e6, TRY_S_MIN)
                now_us += int(try_s * 1e6)
                step = plan.send(ServerUnreachable("refused", sent=False))
            else:
                now_us += int(step.seconds * 1e6)
                step = plan.send(None)
        except ServerUnreachable as raised:
            error = raised
    assert max(begun_us) <= 600_000
    assert (error.tries, error.tried_s) == (len(begun_us), now_us / 1e6)
    assert error.tries > 1 or try_s > 0.6


def test_retries_without_limit() -> None:
    value, pauses = drive(carried_out(call(), Retries(for_s=None, base_s=1.0)), *[NEVER_SENT] * 2000, OK)
    assert value == "{}" and max(pauses) <= 5.0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 500, 507])
def test_a_refusal_is_final(status: int) -> None:
    error, _ = drive(carried_out(call(), QUICK), failure(status, "c"))
    assert isinstance(error, Refused)
    assert (error.status, error.code, error.message, error.state) == (status, "c", "why", "CANCELLED")


@pytest.mark.parametrize("outcome", [LOST, Answer(504, b"")])
def test_an_unrepeatable_call_is_not_retried_if_sent(outcome: Any) -> None:
    error, _ = drive(carried_out(call(repeatable=False), QUICK), outcome)
    assert isinstance(error, ClientError)
    value, _ = drive(carried_out(call(repeatable=False), QUICK), NEVER_SENT, failure(503, "draining"), OK)
    assert value == "{}"


def test_a_refusal_can_show_that_a_lost_try_was_applied() -> None:
    told = failure(409, "job_finished")
    assert drive(carried_out(calls.cancel("j", False), QUICK), LOST, told)[0] == "CANCELLED"
    assert isinstance(drive(carried_out(calls.cancel("j", False), QUICK), told)[0], Conflict)
    assert isinstance(drive(carried_out(calls.cancel("j", False), QUICK), NEVER_SENT, told)[0], Conflict)
    assert isinstance(drive(carried_out(calls.cancel("j", False), QUICK), LOST, failure(409, "other"))[0], Conflict)
    gone = failure(404, "job_not_found")
    assert drive(carried_out(calls.delete("j"), QUICK), LOST, gone)[0] is None


def test_answers_of_a_proxy() -> None:
    error = refusal(Answer(404, b"<html>no such site", request_id="r"))
    assert type(error) is Refused and (error.code, error.request_id) == ("unknown", "r")
    assert "<html>no such site" in error.message and "check the URL" in error.message
    assert str(refusal(Answer(418, b"{}"))) == "the server answered 418 (418 unknown)"
    assert type(refusal(failure(409, "lease_lost"))) is LeaseLost
    error, _ = drive(carried_out(calls.get("j"), QUICK), Answer(200, b"<html>"))
    assert isinstance(error, Refused) and "not come from a fastq server" in error.message


STATUS = b'{"job_id":"j","state":"%s","attempts":0,"max_retries":3,"created_at":"2026-01-01T00:00:00Z"}'


def test_short_long_polls_are_followed_by_a_pause() -> None:
    early, done = Answer(200, STATUS % b"RUNNING"), Answer(200, STATUS % b"DEAD")
    for timeout_s in (None, 30.0):
        job, pauses = drive(calls.until_complete("j", timeout_s, QUICK), early, early, done)
        assert job.is_failed and len(pauses) == 2 and min(pauses) >= 0.25
    error, _ = drive(calls.until_complete("j", 0.0, QUICK), early)
    assert isinstance(error, NotFinished)
    error, _ = drive(calls.until_complete("j", 0.0, Retries(for_s=None)), NEVER_SENT)
    assert error is NEVER_SENT


# --- HTTP -------------------------------------------------------------------------------------------------------------

ANSWER = (
    b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nX-Request-Id: r-1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
)


@pytest.mark.parametrize("piece_bytes", [1, 7, 1000])
def test_an_answer_in_pieces(piece_bytes: int) -> None:
    reply, whole = Reply(), b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER
    for at in range(0, len(whole), piece_bytes):
        assert reply.answer is None
        reply.feed(whole[at : at + piece_bytes])
    assert reply.answer == Answer(503, b"abcde", 7.0, "r-1")
    assert reply.keep_alive


def test_connection_close_is_not_kept_alive() -> None:
    reply = Reply()
    reply.feed(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    assert reply.answer == Answer(200, b"") and not reply.keep_alive


@pytest.mark.parametrize(
    ("link", "cursor"),
    [
        ('</keys?limit=2&cursor=a%2Bb>; rel="next"', "a+b"), ("</keys?cursor=c>;rel=next", "c"),
        ('</s.css>; rel=preload, </keys?cursor=c>; rel="next"', "c"), ('</keys?cursor=c>; rel="prev"', ""), ("", ""),
    ],
)  # fmt: skip
def test_the_next_page_is_in_the_header_link(link: str, cursor: str) -> None:
    reply = Reply()
    reply.feed(f"HTTP/1.1 200 OK\r\nLink: {link}\r\nContent-Length: 2\r\n\r\n[]".encode())
    assert reply.answer is not None and reply.answer.cursor == cursor
    listed, _ = drive(carried_out(operator_calls.list_keys(), QUICK), reply.answer)
    assert listed == Page([], cursor)


def test_bytes_that_are_not_http() -> None:
    with pytest.raises(ValueError, match="not HTTP"):
        Reply().feed(b"SSH-2.0-OpenSSH\r\n")


def test_a_request() -> None:
    address = Address.of("http://[::1]:81/queue/", "k")
    head, _, body = address.request(call(body=b"{}", idempotency_key="i")).partition(b"\r\n\r\n")
    assert (address.host, address.port, body) == ("::1", 81, b"{}")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /queue/x HTTP/1.1"
    assert {"Host: [::1]:81", "Authorization: Bearer k", "Idempotency-Key: i", "Content-Length: 2"} <= set(lines)
    with pytest.raises(ValueError, match="idempotency_key"):
        address.request(call(idempotency_key="a\r\nb: c"))
    assert b"/jobs/..%2F%3Fa%20b" in address.request(calls.get("../?a b"))
