"""The short form of the lane's differential fuzzer: see `tests.http.lane.fuzz`."""

from __future__ import annotations

import pytest

from tests.http.lane.fuzz import fuzz

REQUESTS = 1500


@pytest.mark.parametrize("seed", range(2))
async def test_both_ways_have_the_same_answers_and_jobs(seed: int) -> None:
    sent, taken = await fuzz(seed, REQUESTS)
    assert taken > sent / 5
