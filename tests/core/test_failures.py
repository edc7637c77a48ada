"""Groups of failed attempts: their texts, their bound, and what an earlier process remembered."""

from __future__ import annotations

import traceback

import pytest

from bench.bare import Bare
from fastq._core import ALL, Ack, FailureGroup, NewJob, error_line


class Failing(Bare):
    def __init__(self) -> None:
        super().__init__()
        self.core.resume(self.now_us, 1)
        self.settle()

    def fail(self, error: str, error_code: str = "", outcome: str = "error", queue: str = "default") -> str:
        """Submit a job that fails. Returns its id."""
        self.now_us += 1_000_000
        job_id, _ = self.core.submit(self.now_us, NewJob(b"1", 3, queue=queue), owner_id="ann", key_id="k")
        (lease,) = self.core.lease(self.now_us, [queue], 1, lease_ms=1000, key_id="k")
        ack = Ack(job_id, lease.token, outcome, error=error, error_code=error_code)
        self.core.ack(self.now_us, ALL, ack, key_id="k")
        self.core.delete(self.now_us, ALL, [job_id])
        self.settle()
        return job_id

    def groups(self) -> list[FailureGroup]:
        return self.core.failures(ALL, None, 0, 20_000)


def group_of(number: int, last_us: int, count: int = 1) -> FailureGroup:
    return FailureGroup(
        queue="old", owner_id="ann", error_code="", error=f"e{number}", count=count, first_us=1, last_us=last_us,
        job_id=f"job {number}",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("boom\nat line 3", "boom"),
        ("\n\n boom \r\nat line 3", "boom"),
        ("\u00e9" * 150, "\u00e9" * 100),
        ("a" + "\u00e9" * 150, "a" + "\u00e9" * 99),
        ("\u20ac" * 67, "\u20ac" * 66),
        ("", ""),
        ("   \n", ""),
        ("a\x00b", "a\x00b"),
    ],
)
def test_a_group_has_the_first_line_of_at_most_200_bytes(error: str, line: str) -> None:
    core = Failing()
    job_id = core.fail(error, "E1")
    (group,) = core.groups()
    assert (group.error, group.error_code, group.job_id, group.count) == (line, "E1", job_id, 1)
    assert group.first_us == group.last_us == core.now_us


def raised(chained: bool = False, message: str = "no such host") -> str:
    """The traceback of an error, as programs send it."""
    try:
        try:
            raise ConnectionError("refused")
        except ConnectionError as error:
            raise KeyError(message) from (error if chained else None)
    except KeyError:
        return traceback.format_exc()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (raised(), "KeyError: 'no such host'"),
        ("\n" + raised(), "KeyError: 'no such host'"),
        (raised(chained=True), "KeyError: 'no such host'"),
        (raised().replace("\n", "\r\n"), "KeyError: 'no such host'"),
        (raised() + "the second line of its message\n  and more\n", "KeyError: 'no such host'"),
        (raised(chained=True).rpartition("raise KeyError")[0], "ConnectionError: refused"),
        (raised().rpartition("KeyError")[0].rpartition("raise")[0], "Traceback (most recent call last):"),
        ("Traceback (most recent call last):", "Traceback (most recent call last):"),
        ("ValueError: bad\n" + raised(), "ValueError: bad"),
    ],
    ids=["plain", "blank", "chain", "crlf", "lines", "cut chain", "cut", "head", "message first"],
)
def test_a_traceback_is_grouped_by_its_exception(error: str, line: str) -> None:
    core = Failing()
    core.fail(error)
    (group,) = core.groups()
    assert group.error == line == error_line(error)


def test_equal_failures_are_one_group_and_others_are_not() -> None:
    core = Failing()
    for _ in range(3):
        core.fail("boom\n1")
        core.fail("boom\n2")
    core.fail("boom", "E1")
    core.fail("boom", queue="mail")
    core.fail("", outcome="discard")
    shown = [(group.queue, group.error_code, group.error, group.count) for group in core.groups()]
    assert shown == [
        ("default", "", "discarded", 1),
        ("mail", "", "boom", 1),
        ("default", "E1", "boom", 1),
        ("default", "", "boom", 6),
    ]


def test_what_a_reader_has_does_not_change() -> None:
    core = Failing()
    core.fail("boom")
    (group,) = core.groups()
    core.fail("boom")
    assert group.count == 1 and core.groups()[0].count == 2


def test_the_group_that_was_seen_longest_ago_leaves() -> None:
    core = Failing()
    core.core.add_failures([group_of(number, number + 1) for number in range(10_000)])
    core.core.add_failures([group_of(0, 20_000, count=5)])  # seen again
    assert core.core.failures_dropped == 0 and core.groups()[0].count == 6
    core.fail("new")
    assert core.core.failures_dropped == 1 and len(core.groups()) == 10_000
    names = {group.error for group in core.groups()}
    assert "e0" in names and "e1" not in names and core.groups()[0].error == "new"


def test_remembered_groups_are_added_to_those_that_are_there() -> None:
    core = Failing()
    core.fail("e1", queue="old")
    seen_us = core.now_us
    core.core.add_failures([group_of(1, 5, count=7), group_of(2, 6), group_of(3, seen_us + 9)])
    shown = [(group.error, group.count, group.first_us, group.last_us) for group in core.groups()]
    assert shown == [("e3", 1, 1, seen_us + 9), ("e1", 8, 1, seen_us), ("e2", 1, 1, 6)]


def test_a_change_keeps_its_names_when_the_queue_is_gone() -> None:
    core = Failing()
    for number in range(400):
        core.fail("boom", queue=f"q{number}")
        core.core.check()
    changes, left_out, first = core.core.changes(0, 1 << 62, 2000)
    assert len(changes) == 1024 and left_out == 0 and changes[0].seq == first
    assert [change.queue for change in changes[-4:]] == ["q399"] * 4
    assert [change.what for change in changes[-4:]] == ["submitted", "leased", "failed", "deleted"]
