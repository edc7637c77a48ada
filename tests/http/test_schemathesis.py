"""The short form of `./dev fuzz`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.http.fuzz import fuzz

pytestmark = pytest.mark.slow


def test_every_answer_is_one_that_the_document_allows(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    done = fuzz(tmp_path, examples=3, seed=1)
    assert done.returncode == 0, done.stdout
    tested = re.search(r"Selected: (\d+)/(\d+)\s+Tested: \1\n", done.stdout)
    assert tested is not None, done.stdout
    assert int(tested[2]) == int(tested[1]) + 1  # all but the stream of events
    generated = re.search(r"(\d+) generated", done.stdout)
    assert generated is not None, done.stdout
    record_property("cases", generated[1])
    assert int(generated[1]) > 30 * int(tested[1])
