"""Install missing systems with apt, where that is allowed, without starting their services."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.compare.system import System

POLICY = Path("/usr/sbin/policy-rc.d")  # Debian's packages ask it whether they may start their services


@contextmanager
def no_service_starts() -> Iterator[None]:
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def apt_install(packages: Sequence[str], say: Callable[[str], None]) -> None:
    """Try to install packages, if this is root on Debian. Failures show when the programs are looked up."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    say(f"installing packages: {' '.join(packages)}")
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with no_service_starts():
        for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            subprocess.run(
                ["apt-get", "-qq", *command], env=environ, check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip


def installed(wanted: Sequence[type[System]], say: Callable[[str], None]) -> list[type[System]]:
    """The systems that are installed, after an attempt to install the others. Says which it skips."""
    if lacking := sorted({system.package for system in wanted if system.found() is None}):
        apt_install(lacking, say)
    here = []
    for system in wanted:
        if system.found() is None:
            say(f"skipped: {system.name} is not installed (as root: apt-get install {system.package})")
        else:
            here.append(system)
    return here
