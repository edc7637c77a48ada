from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.keys.kept import Kept
from tests.services.keys.valkey import Valkey


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "valkey") as one:
        yield one
