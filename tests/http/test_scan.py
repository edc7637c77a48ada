"""What is looked for in a JSON text before it is decoded: depth, surrogates, numbers that nobody reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastq.http._scan import numbers_fit, scan
from tests.http.world import World

# --- the scan ---------------------------------------------------------------------------------------------------------


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('[]{}"\\,:aé\U0001f600\n')),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.sampled_from('[{"\\u'), max_size=4), inner),
    max_leaves=30,
)


@given(JSON_VALUES, st.booleans())
def test_scan_agrees_with_a_parser_about_depth(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    depth = depth_of(value)
    assert scan(text, depth) == ""
    if depth:
        assert scan(text, depth - 1) == "depth"


@given(st.text(st.characters(min_codepoint=0xD7F0, max_codepoint=0xE010, categories=["Cs", "Co", "Lo"]) | st.just("a")))
def test_scan_agrees_with_a_codec_about_surrogates(text: str) -> None:
    """Python's escapes of a string with surrogates are paired by its UTF-16 codec, or they are not."""
    try:
        text.encode("utf-16", "surrogatepass").decode("utf-16")
        whole = True
    except UnicodeDecodeError:
        whole = False
    assert (scan(json.dumps(text).encode(), 64) == "") == whole


@given(st.binary(max_size=200))
def test_scan_takes_any_bytes(data: bytes) -> None:
    assert scan(data, 64) in ("", "depth", "surrogate")


# --- numbers inside a payload -----------------------------------------------------------------------------------------

NUMBER_LIMIT = "each number must have at most 400 characters and be within ±1.8e308"
FITS = ["0", "-0.0", "1e308", "-1.7976931348623157e308", "1E-999999", "9" * 308, "0." + "1" * 398, str(2**200)]
DOES_NOT_FIT = ["1e309", "-1e999999", "1.8e308", "9" * 309, "1" * 100_001, "0." + "1" * 399]


@pytest.mark.parametrize("number", FITS)
async def test_a_number_in_a_payload_is_kept_as_it_is(world: World, number: str) -> None:
    payload = f'{{"n":[{number}]}}'
    assert (await world.call("client", "POST", "/jobs", b'{"payload":' + payload.encode() + b"}")).status == 201
    assert (await world.lease())["payload"] == payload


@pytest.mark.parametrize("number", DOES_NOT_FIT)
@pytest.mark.parametrize("around", ["NUMBER", "[1,NUMBER]", '{"a\\"":"\\\\","n":{"m":NUMBER}}'])
async def test_a_number_that_no_library_reads_is_refused(world: World, number: str, around: str) -> None:
    text = around.replace("NUMBER", number).encode()
    reply = await world.call("client", "POST", "/jobs", b'{"payload":' + text + b"}")
    assert (reply.status, reply.error) == (400, f"payload: {NUMBER_LIMIT}")
    reply = await world.call("client", "POST", "/jobs/batch", b'{"jobs":[{"payload":1},{"payload":' + text + b"}]}")
    assert (reply.status, reply.error) == (400, f"jobs[1]: payload: {NUMBER_LIMIT}")
    await world.submit()
    leased = await world.lease()
    reply = await world.call("worker", "POST", f"/jobs/{leased['job_id']}/ack", b'{"result":' + text + b"}")
    assert (reply.status, reply.error) == (400, f"result: {NUMBER_LIMIT}")


@pytest.mark.parametrize("number", DOES_NOT_FIT)
async def test_a_number_in_a_string_is_a_string(world: World, number: str) -> None:
    payload = json.dumps([f'"{number}', "\\", number])
    reply = await world.call("client", "POST", "/jobs", b'{"payload":' + payload.encode() + b"}")
    assert reply.status == 201


ALL_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text('"\\1e9 '),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('"\\1e9'), inner),
)


@given(ALL_VALUES, st.sampled_from([None, *FITS, *DOES_NOT_FIT]))
def test_numbers_agree_with_a_parser(value: Any, planted: str | None) -> None:
    text = json.dumps([value])[:-1] + (f",{planted}]" if planted else "]")
    assert numbers_fit(text.encode(), 400) == (planted not in DOES_NOT_FIT)


@given(st.binary(max_size=60) | st.text('"\\1e9-+.').map(str.encode))
def test_numbers_of_what_is_no_json(data: bytes) -> None:
    assert numbers_fit(data, 400) in (True, False)
