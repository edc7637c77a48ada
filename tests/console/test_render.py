from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastq.console.render import PRETTY_BYTES_MAX, bytes_text, plain, pretty, rate_text, span_text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(JSON, st.booleans())
def test_pretty_json_means_the_same(value: object, is_ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii)
    assert json.loads(pretty(text.encode("utf-8", "surrogatepass"))) == value or not text.isascii()
    if text.isascii():
        assert "".join(pretty(text).split()) == "".join(text.split())


def test_numbers_stay_digit_by_digit() -> None:
    text = '{"a":[9223372036854775808,1e400,-0.10,{}],"b":[]}'
    assert pretty(text) == '{\n  "a": [\n    9223372036854775808,\n    1e400,\n    -0.10,\n    {}\n  ],\n  "b": []\n}'


def test_what_turns_the_direction_of_text_is_shown() -> None:
    assert plain("a\u202eb\u2066c\x00d\te\nf") == "a\\u202eb\\u2066c\\u0000d\te\nf"
    assert pretty('"a\u202eb"') == '"a\\u202eb"'


def test_a_long_payload_is_cut() -> None:
    assert len(pretty(b'"' + b"x" * (1 << 20) + b'"')) <= PRETTY_BYTES_MAX
    assert len(pretty(b"[" * 64 + b"]" * 64)) < PRETTY_BYTES_MAX


@pytest.mark.parametrize(
    ("us", "text"),
    [(300, "0.3 ms"), (840_000, "840 ms"), (1_500_000, "1.5 s"), (12_000_000, "12 s"), (180_000_000, "3 min"),
     (7_500_000_000, "2 h 5 min"), (356_400_000_000, "4 d 3 h"), (60 * 86_400_000_000, "60 d")],
)  # fmt: skip
def test_lengths_of_time(us: int, text: str) -> None:
    assert span_text(us) == text


def test_figures() -> None:
    assert [rate_text(per_s) for per_s in (0, 0.01, 0.5, 99.94, 4112.4)] == ["0.0", "<0.1", "0.5", "99.9", "4,112"]
    assert [bytes_text(count) for count in (0, 1023, 1536, 64 << 20)] == ["0 B", "1023 B", "1.5 KiB", "64.0 MiB"]
