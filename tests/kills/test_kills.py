"""Short runs of the kill harness on a good server and on bad ones. `./dev kills` is the long form."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.kills.run import Plan, Run

pytestmark = pytest.mark.slow


def serve(module: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, "serve")


async def test_a_server_that_is_killed_under_mixed_operations_keeps_its_word(tmp_path: Path) -> None:
    run = await Run(Plan(kills=6, actors=4, seed=11), tmp_path).whole()
    assert not run.faults.counts, run.text()
    assert run.counts["kills"] + run.counts["stops"] == 7
    assert run.line.counts["unanswered"] > 0
    assert run.line.counts["settled by looking"] + run.line.counts["submit"] > 0


@pytest.mark.parametrize("mutant", ["hasty", "losing"])
async def test_a_server_that_breaks_its_word_is_caught(mutant: str, tmp_path: Path) -> None:
    run = await Run(Plan(kills=6, actors=4, seed=3, serve=serve(f"tests.chaos.{mutant}")), tmp_path).whole()
    assert run.faults.counts, run.text()
