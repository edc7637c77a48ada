"""The order of the layers, read from import-linter's contracts in pyproject.toml, its only place."""

from __future__ import annotations

import tomllib
from typing import Any

from tests.house.tree import ROOT


def contracts() -> dict[str, dict[str, Any]]:
    """import-linter's contracts by id."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return {contract["id"]: contract for contract in found}


def layer_rows() -> list[list[str]]:
    """The layers, highest first. Layers in one row do not import each other. The core, below all, is not Python."""
    return [row.split(" | ") for row in contracts()["layers"]["layers"]]


def picture() -> str:
    """The order for people."""
    rows = [row for row in layer_rows() if row != ["__main__"]]
    return " → ".join(", ".join(row) for row in [*rows, ["core"]])
