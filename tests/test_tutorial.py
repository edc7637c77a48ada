"""docs/tutorial.md, typed in as it stands: each block in its order, and it prints what is written there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.served import ROOT, Served
from tests.typed import Reader, Shell, blocks


@pytest.mark.slow
def test_every_step(tmp_path: Path) -> None:
    run, *steps = blocks((ROOT / "docs/tutorial.md").read_text())
    assert run.commands() == [("./dev run", "")]
    with (
        Served(tmp_path / "data", WAL_SEGMENT_BYTES="4MiB") as server,
        Shell(tmp_path, columns=160, FASTQ_URL=f"http://127.0.0.1:{server.port}") as shell,
    ):
        reader = Reader(tmp_path, server, shell)
        for step in steps:
            reader.follow(step)
        assert reader.typed >= 11
