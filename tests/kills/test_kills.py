"""Short runs of the kill harness on a good server and on bad ones. `./dev kills` is the long form."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kills.actor import Actor
from tests.kills.line import Faults, Line, Told
from tests.kills.run import Plan, Run

pytestmark = pytest.mark.slow


def serve(module: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, "serve")


class Replies(Line):
    """Answers GET with these, one after the other."""

    def __init__(self, *statuses: int) -> None:
        self.statuses, self.faults = list(statuses), Faults()

    async def ask_until(self, method: str, path: str, body: Any = None, key: str = "") -> Told:
        return Told(self.statuses.pop(0), {})


@pytest.mark.parametrize(("statuses", "faults"), [((200, 404, 404), 0), ((200, 404, 200), 1), ((404, 404), 0)])
async def test_a_job_that_goes_between_two_reads_is_not_unreadable(statuses: tuple[int, ...], faults: int) -> None:
    line = Replies(*statuses)
    assert await Actor(line, "k0", random.Random(1)).look("j") is None
    assert line.faults.counts["unreadable"] == faults


async def test_a_server_that_is_killed_under_mixed_operations_keeps_its_word(tmp_path: Path) -> None:
    run = await Run(Plan(kills=6, actors=4, seed=11), tmp_path).whole()
    assert not run.faults.counts, run.text()
    assert run.counts["kills"] + run.counts["stops"] == 7
    assert run.line.counts["unanswered"] > 0
    assert run.line.counts["settled by looking"] + run.line.counts["submit"] > 0


@pytest.mark.parametrize("mutant", ["hasty", "losing"])
async def test_a_faulty_server_is_detected(mutant: str, tmp_path: Path) -> None:
    run = await Run(Plan(kills=6, actors=4, seed=3, serve=serve(f"tests.chaos.{mutant}")), tmp_path).whole()
    assert run.faults.counts, run.text()
