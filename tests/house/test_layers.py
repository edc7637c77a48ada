"""Every package has its place in the order of the layers, and the documents show this order."""

from __future__ import annotations

from tests.house.layers import contracts, layer_rows, picture
from tests.house.rules import LAYERS, LEAVES
from tests.house.tree import ROOT

NATIVE = {"_core", "core", "_clock"}


def rooms() -> set[str]:
    """The modules and packages directly in fastq."""
    entries = (ROOT / "fastq").iterdir()
    return {
        entry.name.split(".")[0]
        for entry in entries
        if entry.suffix in {".py", ".pyx"} or (entry / "__init__.py").exists() or entry.name == "core"
    } - {"__init__"}


def test_every_package_is_a_layer_a_leaf_or_the_client() -> None:
    assert rooms() == {*LAYERS, *LEAVES, *NATIVE, "client"}


def test_leaves_and_client_import_no_layer() -> None:
    layers = {f"fastq.{name}" for row in layer_rows() for name in row}
    leaves, client = contracts()["leaves"], contracts()["client"]
    assert set(leaves["forbidden_modules"]) == layers | {"fastq.client"}
    used = {*client["forbidden_modules"], *client["source_modules"]}
    assert used == layers - {"fastq.chaos"} | {"fastq.client"}, "chaos starts a server"


def test_the_picture_shows_the_order() -> None:
    assert f"Imports go one way: {picture()}." in (ROOT / "ARCHITECTURE.md").read_text()
