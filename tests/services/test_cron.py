"""Cron expressions over the days on which clocks jump, in two zones and more; forward and backward the same."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastq.errors import InvalidRequest
from fastq.services.cron import CRON_CHARACTERS_MAX, Cron

NEW_YORK, VIENNA = "America/New_York", "Europe/Vienna"
LORD_HOWE, APIA = "Australia/Lord_Howe", "Pacific/Apia"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def us_of(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def at(text: str, zone: str) -> int:
    """Unix microseconds of a wall clock's time; if it is shown twice, of the first."""
    return us_of(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)))


def shown(us: int, zone: str) -> str:
    return (EPOCH + timedelta(microseconds=us)).astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M %z")


def next_times(cron: str, zone: str, start: str, count: int) -> list[str]:
    """The next ones after a time; looking back from the last of them must find the same."""
    expression, us, found = Cron(cron, zone), at(start, zone), []
    for _ in range(count):
        due_us = expression.after(us)
        assert due_us is not None and due_us > us
        us = due_us
        found.append(us)
    assert list(itertools.islice(expression.until(found[-1]), count)) == found[::-1]
    assert next(expression.until(found[-1] - 1)) == (found[-2] if count > 1 else next(expression.until(found[0] - 1)))
    return [shown(us, zone) for us in found]


@pytest.mark.parametrize(
    ("cron", "zone", "start", "times"),
    [
        # the clock skips from 02:00 to 03:00
        ("30 2 * * *", NEW_YORK, "2026-03-07T12:00", ["03-08 03:00 -0400", "03-09 02:30 -0400"]),
        ("30 2 * * *", VIENNA, "2026-03-28T12:00", ["03-29 03:00 +0200", "03-30 02:30 +0200"]),
        # all that fall into one gap are due together, and with what is due at its end
        ("*/15 2 * * *", VIENNA, "2026-03-28T12:00", ["03-29 03:00 +0200", "03-30 02:00 +0200"]),
        ("0 2,3 * * *", NEW_YORK, "2026-03-07T12:00", ["03-08 03:00 -0400", "03-09 02:00 -0400"]),
        ("30 * * * *", NEW_YORK, "2026-03-08T01:00", ["03-08 01:30 -0500", "03-08 03:00 -0400", "03-08 03:30 -0400"]),
        # the clock shows 01:00 to 02:00 (02:00 to 03:00) twice
        ("30 1 * * *", NEW_YORK, "2026-10-31T12:00", ["11-01 01:30 -0400", "11-02 01:30 -0500"]),
        ("30 2 * * *", VIENNA, "2026-10-24T12:00", ["10-25 02:30 +0200", "10-26 02:30 +0100"]),
        ("*/30 1 * * *", NEW_YORK, "2026-11-01T00:00", ["11-01 01:00 -0400", "11-01 01:30 -0400", "11-02 01:00 -0500"]),
        ("0 * * * *", VIENNA, "2026-10-25T01:30", ["10-25 02:00 +0200", "10-25 03:00 +0100", "10-25 04:00 +0100"]),
        # half an hour, and a whole day that was skipped
        ("15 2 * * *", LORD_HOWE, "2026-10-03T12:00", ["10-04 02:30 +1100", "10-05 02:15 +1100"]),
        ("45 1 * * *", LORD_HOWE, "2026-04-04T12:00", ["04-05 01:45 +1100", "04-06 01:45 +1030"]),
        ("0 12 * * *", APIA, "2011-12-29T08:00", ["12-29 12:00 -1000", "12-31 00:00 +1400", "12-31 12:00 +1400"]),
        # no such days
        ("30 2 * * *", "UTC", "2026-03-28T12:00", ["03-29 02:30 +0000", "03-30 02:30 +0000"]),
        ("0 9 * * MON#1", VIENNA, "2026-03-01T00:00", ["03-02 09:00 +0100", "04-06 09:00 +0200"]),
        ("0 0 L * *", "UTC", "2028-02-01T00:00", ["02-29 00:00 +0000", "03-31 00:00 +0000"]),
        ("0 0 29 2 *", "UTC", "2097-01-01T00:00", ["02-29 00:00 +0000"]),  # 2104: 2100 has none
    ],
)  # fmt: skip
def test_times(cron: str, zone: str, start: str, times: list[str]) -> None:
    assert next_times(cron, zone, start, len(times)) == times


def test_between_the_two_showings_of_an_hour() -> None:
    """01:40, the first time and the second: what is due at 01:50 is due once, in the first."""
    first = at("2026-11-01T01:40", NEW_YORK)
    second = first + 3_600_000_000
    cron = Cron("50 1 * * *", NEW_YORK)
    due = at("2026-11-01T01:50", NEW_YORK)
    assert cron.after(first) == due
    assert cron.after(second) == at("2026-11-02T01:50", NEW_YORK)
    assert next(cron.until(second)) == due
    assert next(cron.until(first)) == at("2026-10-31T01:50", NEW_YORK)


def test_a_part_of_a_second_counts() -> None:
    cron, due = Cron("0 12 * * *", "UTC"), at("2026-01-01T12:00", "UTC")
    assert cron.after(due - 1) == due
    assert cron.after(due) == due + 86_400_000_000
    assert next(cron.until(due)) == due
    assert next(cron.until(due - 1)) == due - 86_400_000_000


FIELD = st.sampled_from(["*", "*/7", "0", "1", "2", "3", "1-3", "30", "2,5"])
DAY = st.sampled_from(["*", "1", "L", "29", "8-14"])


@settings(max_examples=60, deadline=None)
@given(
    minute=FIELD, hour=st.sampled_from(["*", "1", "2", "*/3", "0-4"]), day=DAY, zone=st.sampled_from(
        [NEW_YORK, VIENNA, LORD_HOWE, "UTC", "Asia/Kathmandu"]
    ), start=st.integers(1_740_000_000, 1_800_000_000),
)  # fmt: skip
def test_against_a_walk_over_every_minute(minute: str, hour: str, day: str, zone: str, start: int) -> None:
    """The rule said once more, minute by minute of real time: due if the wall clock first shows a time that matches, or
    has just skipped one."""
    tz, cron = ZoneInfo(zone), Cron(f"{minute} {hour} {day} * *", zone)
    wanted = wall_times(f"{minute} {hour} {day} * *", start, tz)
    begin_us = start // 60 * 60_000_000
    found, us = [], begin_us
    while (next_us := cron.after(us)) is not None and next_us <= begin_us + 3 * 86_400_000_000:
        found.append(next_us)
        us = next_us
    assert found == wanted
    if found:
        backward = itertools.takewhile(lambda due_us: due_us > begin_us, cron.until(us))
        assert list(backward) == found[::-1]


def wall_times(cron: str, start: int, zone: ZoneInfo) -> list[int]:
    """Instants within three days after the minute of `start`, Unix microseconds."""
    from cronsim import CronSim

    moment = datetime.fromtimestamp(start // 60 * 60, UTC)
    last = moment + timedelta(days=3)
    shown_before = set()
    wall = moment.astimezone(zone)
    for minutes in range(-180, 1):  # what an hour that is shown again has shown already
        shown_before.add((moment + timedelta(minutes=minutes)).astimezone(zone).replace(tzinfo=None, fold=0))
    latest = max(shown_before)
    matches = iter(CronSim(cron, latest))
    due, found = next(matches), []
    while moment < last:
        moment += timedelta(minutes=1)
        wall = moment.astimezone(zone).replace(tzinfo=None, fold=0)
        while due < wall and due > latest:  # skipped
            found.append(us_of(moment))
            due = next(matches)
        if due == wall:
            found.append(us_of(moment))
            due = next(matches)
        latest = max(latest, wall)
    return sorted(set(found))


@pytest.mark.parametrize(
    ("cron", "zone", "message"),
    [
        ("", "UTC", "cron must have 5 fields"),
        ("* * * *", "UTC", "cron must have 5 fields"),
        ("0 * * * * *", "UTC", "cron must have 5 fields"),
        ("@daily", "UTC", "cron must have 5 fields"),
        ("60 * * * *", "UTC", "cron is invalid: bad minute"),
        ("* 24 * * *", "UTC", "cron is invalid: bad hour"),
        ("* * 0 * *", "UTC", "cron is invalid: bad day-of-month"),
        ("* * * FOO *", "UTC", "cron is invalid: bad month"),
        ("* * * * 8", "UTC", "cron is invalid: bad day-of-week"),
        ("0 0 30 2 *", "UTC", "cron is invalid: bad day-of-month"),
        ("0" * CRON_CHARACTERS_MAX + " * * * *", "UTC", "cron must be at most 200 characters"),
        ("* * * * *", "", "timezone must be the name of an IANA time zone"),
        ("* * * * *", "Mars/Olympus", "timezone must be"),
        ("* * * * *", "../etc/passwd", "timezone must be"),
        ("* * * * *", "/etc/localtime", "timezone must be"),
        ("* * * * *", "America", "timezone must be"),
        ("* * * * *", "x" * 65, "timezone must be"),
        ("* * * * *", "\0", "timezone must be"),
    ],
)
def test_refused(cron: str, zone: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Cron(cron, zone)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.text("0123456789*/,-#LW JANMO٣²", max_size=8), min_size=5, max_size=5).map(" ".join),
    st.text(max_size=20),
)
def test_anything_else_is_refused_in_our_words(cron: str, zone: str) -> None:
    for given_zone in ("UTC", zone):
        message = ""
        try:
            Cron(cron, given_zone).after(0)
        except InvalidRequest as error:
            message = str(error)
        assert message.startswith(("cron ", "timezone ")) or not message
