"""docs/cli.md: runs each command, in order, and compares its output."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.served import ROOT, Served
from tests.typed import Shell, blocks, settled

pytestmark = pytest.mark.slow

DOCUMENT = ROOT / "docs/cli.md"
COLUMNS = 120  # of the terminal that the document shows
COPIED = "JOB=… TOKEN=…"  # by a person
COPY = "JOB=$(sed -n 's/^job_id *//p' said) TOKEN=$(sed -n 's/^lease_token *//p' said)"


def test_every_command_prints_the_documented_output(tmp_path: Path) -> None:
    written = [
        (command, expected)
        for block in blocks(DOCUMENT.read_text())
        if block.language == "console"
        for command, expected in block.commands()
        if "export FASTQ" not in command
    ]
    assert len(written) > 25
    with Served(tmp_path / "data") as server:
        url = f"http://127.0.0.1:{server.port}"
        with Shell(
            tmp_path, columns=COLUMNS, FASTQ_URL=url, FASTQ_KEY=server.keys["admin"], PYTHONPATH=str(ROOT)
        ) as shell:
            for command, expected in written:
                told = " | tee said" if command.startswith("fastq lease --queue mail") else ""
                output = shell.enter(COPY if command == COPIED else command + told)
                assert settled(output) == settled(expected), command
