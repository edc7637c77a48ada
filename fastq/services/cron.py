"""Cron expressions in a time zone: the instants at which one is due, forward and backward.

An expression has times of the zone's wall clock. A time that the clock skips is due at the first instant after the gap.
A time that the clock shows twice is due the first time only. So two times in one gap are due at one instant, and a
schedule for every few minutes is silent while the clock repeats an hour. UTC has neither gaps nor repeated hours.

cronsim parses the expression and finds the wall clock's times. It does not get the zone: its handling of gaps and
repeated hours depends on the form of the expression.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from fastq.errors import InvalidRequest

CRON_CHARACTERS_MAX = 200
ZONE_CHARACTERS_MAX = 64
_FIELDS = 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_US = 1_000_000


class Cron:
    """An expression of five fields (minute, hour, day of month, month, day of week) in an IANA zone. Immutable.

    With both days given, one of them must match; if one starts with a star, both must. Names (MON, JAN), `L` (the last
    day), `LW`, `5L` and `1#2` are allowed. Seconds are not: a schedule is due at most once a minute.
    """

    def __init__(self, expression: str, zone: str) -> None:
        """
        Raises:
            InvalidRequest: `cron` or `timezone` is invalid, or the expression matches no day of 50 years.
        """
        if len(expression) > CRON_CHARACTERS_MAX:
            raise InvalidRequest(f"cron must be at most {CRON_CHARACTERS_MAX} characters")
        if len(expression.split()) != _FIELDS:
            raise InvalidRequest("cron must have 5 fields: minute, hour, day of month, month, day of week")
        self._zone = _zone(zone)
        self._expression = expression
        try:
            next(CronSim(expression, datetime(2000, 1, 1)))
        except CronSimError as error:
            raise InvalidRequest(f"cron is invalid: {str(error).lower()}") from None
        except StopIteration:
            raise InvalidRequest("cron is never due: no day of the next 50 years matches it") from None

    def after(self, us: int) -> int | None:
        """Return the first instant after `us`, in Unix microseconds, None without one in 50 years."""
        wall = _utc(us).astimezone(self._zone).replace(tzinfo=None)
        for due in CronSim(self._expression, wall):
            due_us = self._instant_us(due)
            if due_us > us:  # an earlier one was due when the clock showed `wall` the first time
                return due_us
        return None

    def until(self, us: int) -> Iterator[int]:
        """Yield the instants up to `us`, the latest first, each once."""
        now = _utc(us).astimezone(self._zone)
        wall = now.replace(tzinfo=None, fold=0)
        if now.fold:  # every repeated time was due before
            wall += _offset(wall, self._zone) - _offset(wall.replace(fold=1), self._zone)
        last_us = us + 1
        for due in CronSim(self._expression, wall + timedelta(seconds=1), reverse=True):
            due_us = self._instant_us(due)
            if due_us < last_us:
                last_us = due_us
                yield due_us

    def _instant_us(self, wall: datetime) -> int:
        """Return the instant at which the zone's clock first shows `wall`, or the end of the gap that skips it."""
        before = wall - _offset(wall, self._zone)
        if before.replace(tzinfo=UTC).astimezone(self._zone).replace(tzinfo=None, fold=0) == wall:
            return _us(before)
        after = wall - _offset(
            wall.replace(fold=1), self._zone
        )  # in a gap the later offset gives an instant before the gap
        return self._gap_end_us(_us(after), _us(before))

    def _gap_end_us(self, early_us: int, late_us: int) -> int:
        """Return the first second in (early, late] with the offset of `late`."""
        offset = _utc(late_us).astimezone(self._zone).utcoffset()
        while late_us - early_us > _SECOND_US:
            middle_us = (early_us + late_us) // (2 * _SECOND_US) * _SECOND_US
            if _utc(middle_us).astimezone(self._zone).utcoffset() == offset:
                late_us = middle_us
            else:
                early_us = middle_us
        return late_us


class Every:
    """The multiples of a time since 1970: every five minutes is at :00, :05 and so on. Immutable."""

    def __init__(self, every_ms: int) -> None:
        self._every_us = every_ms * 1000

    def after(self, us: int) -> int | None:
        """As `Cron.after`."""
        return (us // self._every_us + 1) * self._every_us

    def until(self, us: int) -> Iterator[int]:
        """As `Cron.until`."""
        yield from range(us // self._every_us * self._every_us, 0, -self._every_us)


Times = Cron | Every


def _zone(name: str) -> ZoneInfo:
    if 0 < len(name) <= ZONE_CHARACTERS_MAX:
        try:
            return ZoneInfo(name)
        except (ValueError, OSError, KeyError):  # not a file name, a directory, an unknown zone
            pass
    raise InvalidRequest("timezone must be the name of an IANA time zone, such as Europe/Vienna or UTC")


def _offset(wall: datetime, zone: ZoneInfo) -> timedelta:
    offset = wall.replace(tzinfo=zone).utcoffset()
    assert offset is not None, "a zone has an offset at any time"
    return offset


def _utc(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _us(naive_utc: datetime) -> int:
    return (naive_utc.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
