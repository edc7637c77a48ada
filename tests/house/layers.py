"""The order of the layers, as pyproject.toml has it for import-linter: nowhere else is it written down."""

from __future__ import annotations

import tomllib
from typing import Any

from tests.house.tree import ROOT


def contracts() -> dict[str, dict[str, Any]]:
    """import-linter's contracts by id."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return {contract["id"]: contract for contract in found}


def layer_rows() -> list[list[str]]:
    """The highest first; those of one row know nothing of each other. The core, below all, is not Python."""
    return [row.split(" | ") for row in contracts()["layers"]["layers"]]


def picture() -> str:
    """The order as a person reads it."""
    rows = [row for row in layer_rows() if row != ["__main__"]]
    return " → ".join(", ".join(row) for row in [*rows, ["core"]])
