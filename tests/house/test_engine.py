"""The image and the compose files, if an engine runs and has the images. `./dev container --engine` prepares them."""

from __future__ import annotations

import os

import pytest

from tests.house import engine
from tests.house.tree import ROOT

DIRECTORY = ROOT / "build/engine"
HOW = "`./dev container --engine` starts one, as root on Debian"


def why_not() -> str:
    if not engine.engine_runs():
        if engine.lacking_packages() or os.geteuid() != 0 or not (DIRECTORY / "data").is_dir():
            return f"no container engine runs; {HOW}"
    elif missing := engine.missing_images():
        return f"the engine lacks {', '.join(missing)}: pull them, or {HOW}"
    return ""


@pytest.mark.alone
@pytest.mark.timeout(900)
def test_keys_and_jobs_survive_a_kill_of_every_container() -> None:
    if reason := why_not():
        pytest.skip(reason)
    engine.main(DIRECTORY)
