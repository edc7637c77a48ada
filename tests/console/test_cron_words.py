from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastq.console.cron_words import cron_words
from fastq.errors import InvalidRequest
from fastq.services.cron import Cron

START_US = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
TIMES = 40


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("* * * * *", "every minute"),
        ("*/5 * * * *", "every 5 minutes"),
        ("*/1 * * * *", "every minute"),
        ("0 * * * *", "every hour"),
        ("15,45 * * * *", "at minute 15 and 45 of every hour"),
        ("0 */6 * * *", "every 6 hours"),
        ("30 */6 * * *", "every 6 hours, at minute 30"),
        ("30 2 * * *", "at 02:30 every day"),
        ("30 2,14 * * *", "at 02:30 and 14:30 every day"),
        ("0 9 * * MON-FRI", "at 09:00 from Monday to Friday"),
        ("0 9 * * mon", "at 09:00 on Monday"),
        ("0 9 * * 0,6", "at 09:00 on Saturday and Sunday"),
        ("0 9 * * 1-2", "at 09:00 on Monday and Tuesday"),
        ("0 9 * * 1-7", "at 09:00 every day"),
        ("*/10 9-17 * * MON-FRI", "every 10 minutes from 09:00 to 17:59, from Monday to Friday"),
        ("0 9-17 * * *", "every hour from 09:00 to 17:00"),
        ("0 0 1 * *", "at 00:00 on day 1 of each month"),
        ("0 0 1,15 * *", "at 00:00 on day 1 and 15 of each month"),
        ("0 0 L * *", "at 00:00 on the last day of each month"),
        ("0 0 1 1 *", "at 00:00 on day 1 of January"),
        ("0 12 * JUN-AUG *", "at 12:00 every day in June to August"),
        ("0 12 * 12 SUN", "at 12:00 on Sunday in December"),
        ("*/7 * * * *", "*/7 * * * *"),
        ("0 0 13 * FRI", "0 0 13 * FRI"),
        ("0 0 * * 5L", "0 0 * * 5L"),
        ("0 0 LW * *", "0 0 LW * *"),
        ("0 0 * * MON#1", "0 0 * * MON#1"),
        ("5-10 2 * * *", "5-10 2 * * *"),
        ("@every 5m", "every 5 minutes"),
        ("@every 1h", "every hour"),
        ("@every 1500ms", "every 1500 milliseconds"),
    ],
)
def test_words(expression: str, words: str) -> None:
    if not expression.startswith("@"):
        Cron(expression, "UTC")
    assert cron_words(expression) == words


def _field(most: int, least: int = 0, more: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    number = st.integers(least, most).map(str)
    several = st.lists(number, min_size=1, max_size=3).map(",".join)
    span = st.tuples(number, number).map("-".join)
    step = st.tuples(st.one_of(st.just("*"), span), st.integers(1, most).map(str)).map("/".join)
    return st.one_of(st.just("*"), st.just("*"), number, several, span, step, *map(st.just, more))


DAYS, MONTHS, WEEKDAYS = _field(31, 1, ("L", "LW")), _field(12, 1, ("FEB", "jan,jul")), _field(7, 0, ("mon-fri", "5L"))
EXPRESSIONS = st.tuples(_field(59), _field(23), DAYS, MONTHS, WEEKDAYS).map(" ".join)


def _due(expression: str) -> list[int]:
    cron, found, us = Cron(expression, "UTC"), [], START_US
    for _ in range(TIMES):
        next_us = cron.after(us)
        if next_us is None:
            break
        found.append(next_us)
        us = next_us
    return found


_said: dict[str, str] = {}


@given(EXPRESSIONS)
def test_the_same_words_mean_the_same_times(expression: str) -> None:
    try:
        Cron(expression, "UTC")
    except InvalidRequest:
        return
    words = cron_words(expression)
    if words != expression and (other := _said.setdefault(words, expression)) != expression:
        assert _due(other) == _due(expression), words


@given(st.text())
def test_any_text_is_shown(text: str) -> None:
    assert cron_words(text) or not text
