"""Lint, types, stubs, imports and shell scripts: the tools find nothing in the project, and find planted faults."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.layers import contracts, layer_rows
from tests.house.tree import ROOT

BIN = Path(sys.executable).parent
EXTENSIONS = sorted(
    ".".join(source.relative_to(ROOT).with_suffix("").parts) for source in (ROOT / "fastq").rglob("*.pyx")
)


def run(*argv: str, cwd: Path = ROOT) -> tuple[int, str]:
    """(exit code, output) of a command; modules are imported from `cwd` first."""
    env = {**os.environ, "PYTHONPATH": str(cwd)}
    done = subprocess.run(
        argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


# --- ruff -------------------------------------------------------------------------------------------------------------

# Without its cache: ruff may remember how imports were sorted before a module was there.
RUFF = [str(BIN / "ruff"), "check", "--no-cache", "-q", "--output-format=concise", f"--config={ROOT}/pyproject.toml"]


def test_lint() -> None:
    code, output = run(*RUFF, "fastq", "tests", "setup.py", *(["bench"] if (ROOT / "bench").is_dir() else []))
    assert code == 0, output


def test_lint_catches(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("import os\n\n\ndef f(x=[]):\n    return f'{x}'\n")
    code, output = run(*RUFF, str(tmp_path))
    assert code == 1
    assert {"F401", "B006", "I002"} <= set(output.split()), output


# --- mypy -------------------------------------------------------------------------------------------------------------

MYPY = [sys.executable, "-m", "mypy", "--no-error-summary", "--config-file", str(ROOT / "pyproject.toml")]


def test_types() -> None:
    code, output = run(*MYPY)
    assert code == 0, output


def test_types_catch(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(
        "from fastq._core import RecordPlace, Tail\n"
        "def untyped(x): return x\n"
        "def wrong(tail: Tail) -> int: return tail.cached(RecordPlace(1, 2, 3))\n"
    )
    code, output = run(*MYPY, str(tmp_path / "planted.py"))
    assert code == 1
    assert "[no-untyped-def]" in output
    assert "[return-value]" in output


# --- stubs ------------------------------------------------------------------------------------------------------------


ONLY_IN_STUBS = [
    "fastq._core.Batch.__buffer__",  # the C buffer protocol, which Python shows from 3.12 on
    "fastq._core.Jitter",  # types that only annotations name
    "fastq._core.Submitted",
]


def stubtest(allowlist: Path, *modules: str, cwd: Path = ROOT) -> tuple[int, str]:
    names = [re.escape(name) for name in ONLY_IN_STUBS]
    names.append(r".*\.__pyx_capi__")  # what one extension gives to another
    allowlist.write_text("\n".join(names))
    return run(
        sys.executable, "-m", "mypy.stubtest", "--concise", "--mypy-config-file", str(ROOT / "pyproject.toml"),
        "--allowlist", str(allowlist), "--ignore-unused-allowlist", *modules, cwd=cwd,
    )  # fmt: skip


def test_stubs_agree_with_the_extensions(tmp_path: Path) -> None:
    assert {"fastq._core", "fastq.log.files._flusher"} <= set(EXTENSIONS)
    code, output = stubtest(tmp_path / "allowed", *EXTENSIONS)
    assert code == 0, output


def test_stubs_catch(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("def f(a): return a\n")
    (tmp_path / "planted.pyi").write_text("def f(b: int) -> int: ...\n")
    code, output = stubtest(tmp_path / "allowed", "planted", cwd=tmp_path)
    assert code == 1
    assert "planted.f" in output


# --- imports ----------------------------------------------------------------------------------------------------------


def lint_imports(cwd: Path) -> tuple[int, str]:
    return run(str(BIN / "lint-imports"), "--no-cache", "--config", str(ROOT / "pyproject.toml"), cwd=cwd)


def contract_modules() -> set[str]:
    names = {f"fastq.{layer}" for row in layer_rows() for layer in row}
    for contract in contracts().values():
        names |= {*contract.get("source_modules", []), *contract.get("forbidden_modules", [])}
    return names


def test_imports_go_one_way() -> None:
    code, output = lint_imports(ROOT)
    assert code == 0, output


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("log", "engine"),
        ("engine", "services"),
        ("services", "http"),
        ("http", "server"),
        ("errors", "log"),
        ("client", "http"),
        ("testing", "chaos"),
    ],
)
def test_imports_catch(importer: str, imported: str, tmp_path: Path) -> None:
    package = tmp_path / "fastq"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in contract_modules():
        (package / f"{name.removeprefix('fastq.')}.py").touch()
    assert lint_imports(tmp_path)[0] == 0
    (package / f"{importer}.py").write_text(f"import fastq.{imported}\n")
    code, output = lint_imports(tmp_path)
    assert code == 1
    assert f"fastq.{importer} -> fastq.{imported}" in output


# --- the shell script -------------------------------------------------------------------------------------------------


def shellcheck(path: Path, shell: str) -> tuple[int, str]:
    return run(str(BIN / "shellcheck"), "--shell", shell, "--enable=check-unassigned-uppercase", str(path))


def test_scripts() -> None:
    code, output = shellcheck(ROOT / "dev", "sh")
    assert code == 0, output
    code, output = shellcheck(ROOT / ".ci" / "run", "bash")
    assert code == 0, output


def test_scripts_catch(tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    planted.write_text('#!/bin/sh\nif [[ "$1" == x ]]; then rm -r $2; fi\n')
    code, output = shellcheck(planted, "sh")
    assert code == 1
    assert "SC3010" in output
    assert "SC2086" in output


def test_dev_help_lists_every_command() -> None:
    code, output = run(str(ROOT / "dev"))
    assert code == 0
    assert output.startswith("usage: ./dev COMMAND")
    commands = {line.split("()")[0].removeprefix("cmd_") for line in (ROOT / "dev").read_text().splitlines()
                if line.startswith("cmd_")}  # fmt: skip
    assert {line.split()[0] for line in output.splitlines() if line.startswith("  ")} == commands
    code, output = run(str(ROOT / "dev"), "walk")
    assert code == 2
    assert "usage:" in output
    assert shutil.which("dash") is None or run("dash", "-n", str(ROOT / "dev"))[0] == 0
