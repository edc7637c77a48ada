"""Counting instructions: what a dump says, what the table says of two trees, and the scenarios on a real server."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from bench import against
from bench.load import Server


def test_a_dump_is_read() -> None:
    dump = "version: 1\nevents: Ir\nfn=(1)\n3 700\n\ntotals: 12345\n"
    assert against.counted_in(dump) == 12345
    with pytest.raises(click.ClickException, match="no counts"):
        against.counted_in("version: 1\n")


def test_the_least_of_the_repeats_is_compared() -> None:
    there = [[1000.0, 1100.0] for _ in against.SCENARIOS]
    here = [[1300.0, 1250.0] for _ in against.SCENARIOS]
    head, _, *rows = against.compared("v1", here, there)
    assert "| v1 | here |" in head
    assert len(rows) == len(against.SCENARIOS)
    assert rows[0] == f"| {against.SCENARIOS[0].name} | 1,000 | 1,250 | +25.0% | 10.0% |"


async def test_scenarios_do_what_they_say(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        begun: list[bool] = []
        for scenario in against.SCENARIOS:
            done = await against.operations(server, scenario, 20, lambda: begun.append(True))
            assert done >= 16
        assert len(begun) == len(against.SCENARIOS)
        async with against.Client(server.port, server.keys["client"]) as client:
            with pytest.raises(click.ClickException, match="403"):
                await against.lease_and_ack([client], 1)
