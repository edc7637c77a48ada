"""Cron expressions in words: `30 2 * * *` is "at 02:30 every day".

Only the forms that people write are put into words. An expression of another form is shown as it is: it is better to
read an expression than a sentence that is nearly right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip
_NAMES = {name[:3].upper(): number for number, name in enumerate(DAYS[:7])}
_MONTHS = {name[:3].upper(): number for number, name in enumerate(MONTHS, 1)}
_INTERVAL = re.compile(r"@every ([0-9]{1,12})(ms|s|m|h)")
_NUMBER = re.compile(r"[0-9]{1,2}")
UNITS = {"ms": "millisecond", "s": "second", "m": "minute", "h": "hour"}
TIMES_MAX = 4  # of a day that are listed


def cron_words(expression: str) -> str:
    """Return the expression in words, or the expression itself.

    Args:
        expression: a valid one of five fields, or an interval such as `@every 5m`.
    """
    if interval := _INTERVAL.fullmatch(expression):
        number, unit = int(interval[1]), UNITS[interval[2]]
        return f"every {unit}" if number == 1 else f"every {number} {unit}s"
    fields = expression.upper().split()
    if len(fields) != 5:
        return expression
    minute, hour, day, month, weekday = fields
    times, days = _times(minute, hour), _days(day, month, weekday)
    if not times or days is None:
        return expression
    is_clock = times.startswith("at ") and "hour" not in times
    if days == "":
        return f"{times} every day" if is_clock else times
    return f"{times}, {days}" if not is_clock else f"{times} {days}"


def _times(minute: str, hour: str) -> str:
    """The times of a day; empty if they are of another form."""
    step, of_hour = _step(minute, 60), _step(hour, 24)
    if step and hour == "*":
        return "every minute" if step == 1 else f"every {step} minutes"
    if step and (span := _range(hour, 23)):
        return f"{'every minute' if step == 1 else f'every {step} minutes'} from {span[0]:02}:00 to {span[1]:02}:59"
    minutes = _list(minute, 59)
    if minutes is None or len(minutes) > TIMES_MAX:
        return ""
    if of_hour == 1 and minutes == [0]:
        return "every hour"
    if of_hour == 1:
        return f"at minute {_and(map(str, minutes))} of every hour"
    if len(minutes) != 1:
        return ""
    if of_hour:
        return f"every {of_hour} hours" + (f", at minute {minutes[0]}" if minutes[0] else "")
    if span := _range(hour, 23):
        return f"every hour from {span[0]:02}:{minutes[0]:02} to {span[1]:02}:{minutes[0]:02}"
    hours = _list(hour, 23)
    if hours is None or len(hours) > TIMES_MAX:
        return ""
    return "at " + _and(f"{one:02}:{minutes[0]:02}" for one in hours)


def _days(day: str, month: str, weekday: str) -> str | None:
    """The days of a year: empty for every day, None if they are of another form."""
    months = "" if month == "*" else _months(month)
    if months is None:
        return None
    if day == "*":
        weekdays = "" if weekday == "*" else _weekdays(weekday)
        if weekdays is None:
            return None
        if not months:
            return weekdays
        return f"{weekdays} in {months}" if weekdays else f"every day in {months}"
    if weekday != "*":
        return None  # one of the two days must match, or both: the expression says it better
    if day == "L":
        return f"on the last day of {months or 'each month'}"
    numbers = _list(day, 31, 1)
    if numbers is None or len(numbers) > TIMES_MAX:
        return None
    return f"on day {_and(map(str, numbers))} of {months or 'each month'}"


def _weekdays(text: str) -> str | None:
    for name, number in _NAMES.items():
        text = text.replace(name, str(number))
    if span := _range(text, 7):
        first, last = span
        if (first, last) in ((0, 6), (1, 7)):
            return ""
        if last > first + 1:
            return f"from {DAYS[first]} to {DAYS[last]}"
        return f"on {DAYS[first]} and {DAYS[last]}"
    numbers = _list(text, 7)
    if numbers is None:
        return None
    numbers = sorted({number or 7 for number in numbers})
    return "on " + _and(DAYS[number] for number in numbers) if len(numbers) < 7 else ""


def _months(text: str) -> str | None:
    for name, number in _MONTHS.items():
        text = text.replace(name, str(number))
    if span := _range(text, 12, 1):
        return f"{MONTHS[span[0] - 1]} to {MONTHS[span[1] - 1]}"
    numbers = _list(text, 12, 1)
    return None if numbers is None else _and(MONTHS[number - 1] for number in numbers)


def _step(text: str, whole: int) -> int:
    """The step of `*` or `*/n` if the steps are equal, else 0."""
    if text == "*":
        return 1
    head, slash, step = text.partition("/")
    if head == "*" and slash and _NUMBER.fullmatch(step) and int(step) and whole % int(step) == 0:
        return int(step) if int(step) < whole else 0
    return 0


def _range(text: str, most: int, least: int = 0) -> tuple[int, int] | None:
    first, dash, last = text.partition("-")
    if dash and _NUMBER.fullmatch(first) and _NUMBER.fullmatch(last) and least <= int(first) < int(last) <= most:
        return int(first), int(last)
    return None


def _list(text: str, most: int, least: int = 0) -> list[int] | None:
    """The numbers of a list, rising; None if it is not one of plain numbers."""
    parts = text.split(",")
    if not all(_NUMBER.fullmatch(part) and least <= int(part) <= most for part in parts):
        return None
    return sorted({int(part) for part in parts})


def _and(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
