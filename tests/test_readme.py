"""The README's first screen, typed in as it stands: each block in its order, and it prints what is written there."""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.served import ROOT, Served
from tests.typed import Reader, Shell, blocks

README = (ROOT / "README.md").read_text()
FIRST_SCREEN = README[: README.index("## What it does")]
COMPARISON = (ROOT / "docs/benchmarks/comparison.md").read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_first_screen(tmp_path: Path) -> None:
    run, *rest = blocks(FIRST_SCREEN)
    assert run.commands() == [("./dev run", "")]
    with (
        Served(tmp_path / "data", WAL_SEGMENT_BYTES="4MiB") as server,
        Shell(tmp_path, FASTQ_URL=f"http://127.0.0.1:{server.port}") as shell,
    ):
        reader = Reader(tmp_path, server, shell)
        for block in rest:
            reader.follow(block)
            if "kill -9" in block.text:
                assert server.wait() == -signal.SIGKILL
                server.start()
        assert reader.typed >= 11


def test_its_figures_are_those_of_the_comparison() -> None:
    table = [line.strip("| ").split(" | ") for line in COMPARISON.splitlines() if line.startswith("| ")]
    column = table[0].index("cycle 64 + 64")
    rates = {row[0].strip("*"): row[column] for row in table[1:9]}
    claim = FIRST_SCREEN[FIRST_SCREEN.index("**It is fast.**") :].split("\n- ")[0]
    assert re.findall(r"[\d,]*\d,\d{3}", claim) == [rates["fastq"], rates["postgres"]]
