"""./dev prepares what is missing, once, and says so. Tested in a small checkout, on a machine of shell scripts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.house.tree import ROOT

# Replaces every interpreter. It records its arguments, and leaves the files that the real one would.
PYTHON = """#!/bin/sh
case "$*" in
    "-c import ensurepip"*) [ ! -e "$MACHINE/no-venv" ] && exit ;;
    *"Python.h"*) [ ! -e "$MACHINE/no-headers" ] && exit ;;
    "-c"*"version_info"*) [ ! -e "$MACHINE/old" ] && exit ;;
    "-VV" | "-V") cat "$MACHINE/version" && exit ;;
    "-m pip --version") exit ;;
esac
case "$1" in -c) exit 1 ;; esac
echo "python $*" >>"$MACHINE/asked"
case "$*" in
    "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "setup.py"*) [ ! -e "$MACHINE/broken" ] || { echo "syntax error in a.pyx" >&2; exit 1; }
        touch fastq/a.cpython.so fastq/console/static/htmx.js fastq/console/static/sse.js ;;
esac
[ "python $*" != "$(cat "$MACHINE/failing" 2>/dev/null)" ]
"""
COMPILER = '#!/bin/sh\n[ ! -e "$MACHINE/no-cc" ]\n'
APT_GET = """#!/bin/sh
echo "apt-get $*" >>"$MACHINE/asked"
case "$1" in install) rm -f "$MACHINE"/no-* ;; esac
"""
# What every Debian has.
SYSTEM = ["cat", "chmod", "cksum", "cp", "dirname", "find", "flock", "grep", "mkdir", "mv", "rm", "sh", "touch", "tr"]


class Machine:
    def __init__(self, directory: Path) -> None:
        self.directory, self.checkout, self.bin = directory, directory / "checkout", directory / "bin"
        for made in (self.checkout / "requirements", self.checkout / "fastq/console/static", self.bin):
            made.mkdir(parents=True)
        shutil.copy2(ROOT / "dev", self.checkout / "dev")
        for path in ("requirements/run.txt", "requirements/dev.txt", "fastq/a.pyx", "fastq/a.py", "setup.py"):
            (self.checkout / path).write_text("cython==3\n")
            os.utime(self.checkout / path, (0, 0))
        (directory / "version").write_text("Python 3.11.2\n")
        self.script("python3", PYTHON)
        self.script("cc", COMPILER)
        self.script("apt-get", APT_GET)
        self.script("id", "#!/bin/sh\necho 0\n")
        for name in ("curl", "openssl", "chromium", "promtool"):
            self.script(name, "#!/bin/sh\n")

        (directory / "system").mkdir()
        for name in SYSTEM:
            (directory / "system" / name).symlink_to(shutil.which(name) or name)

    def script(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def failing(self, command: str) -> None:
        """Make one command of python's end with 1."""
        (self.directory / "failing").write_text(command)

    def dev(self, *argv: str) -> tuple[int, list[str], str]:
        """(exit code, commands of python and apt-get, output of ./dev)"""
        (self.directory / "asked").write_text("")
        env = {"PATH": f"{self.bin}:{self.directory / 'system'}", "MACHINE": str(self.directory)}
        done = subprocess.run(
            [str(self.checkout / "dev"), *argv], cwd="/", env=env, capture_output=True, text=True, check=False
        )
        return done.returncode, (self.directory / "asked").read_text().splitlines(), done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


BUILD = "python setup.py -q build_ext --inplace"
PIP = "python -m pip install"
SERVE = "python -m fastq serve"
SUITE = [
    "python -m pytest -q -n auto --dist worksteal -m not alone tests",
    "python -m pytest -q -m alone tests",
]


def test_first_run_prepares_and_repeats_are_quiet(machine: Machine) -> None:
    code, asked, said = machine.dev("run", "--port", "1")
    assert code == 0
    assert [line.split(" -r ")[0].split(" -q")[0] for line in asked] == [
        f"python -m venv --clear {machine.checkout}/.venv", PIP, "python setup.py", f"{SERVE} --port 1",
    ]  # fmt: skip
    assert "--require-hashes -r requirements/run.txt" in asked[1]
    assert said.splitlines() == [
        "dev: making .venv", "dev: installing what requirements/run.txt lists", "dev: building the extension modules"
    ]  # fmt: skip
    assert machine.dev("run") == (0, [SERVE], "")


def test_tests_install_more_and_a_server_then_nothing(machine: Machine) -> None:
    machine.dev("run")
    _, asked, _ = machine.dev("test", "tests/core", "-x")
    assert asked[0].endswith("-r requirements/dev.txt")
    assert asked[1:] == ["python -m pytest tests/core -x"]
    assert machine.dev("run") == (0, [SERVE], "")
    assert machine.dev("test") == (0, SUITE, "")


def test_the_whole_suite_runs_both_parts_and_reports_each(machine: Machine) -> None:
    for part in SUITE:
        machine.failing(part)
        code, asked, _ = machine.dev("test")
        assert (code, asked[-2:]) == (1, SUITE)
    machine.failing("")
    assert machine.dev("test")[0] == 0


def test_the_command_line_runs_where_it_was_called(machine: Machine) -> None:
    machine.dev("run")
    script = machine.checkout / ".venv/bin/python"
    script.write_text(script.read_text().replace('echo "python $*"', 'echo "$PWD: $*"'))
    assert machine.dev("fastq", "submit", "two words") == (0, ["/: -m fastq submit two words"], "")


def test_missing_programs_are_installed(machine: Machine) -> None:
    (machine.bin / "curl").unlink()
    machine.script("apt-get", f"{APT_GET}touch {machine.bin}/curl && chmod +x {machine.bin}/curl\n")
    code, asked, said = machine.dev("run")
    assert code == 0
    assert asked[-3:-1] == ["apt-get update -qq", "apt-get install -y --no-install-recommends curl -qq"]
    assert asked[-1] == SERVE
    assert said.endswith("dev: installing packages: curl\n")


def test_missing_programs_are_reported_and_the_rest_runs(machine: Machine) -> None:
    (machine.bin / "curl").unlink()
    (machine.bin / "promtool").unlink()
    machine.script("id", "#!/bin/sh\necho 1000\n")
    code, asked, said = machine.dev("test")
    assert (code, asked[-2:]) == (0, SUITE)
    assert "dev: missing, as root: apt-get install curl prometheus\n" in said
    assert machine.dev("run") == (0, [SERVE], "dev: missing, as root: apt-get install curl\n")
    machine.script("id", "#!/bin/sh\necho 0\n")
    machine.script("apt-get", "#!/bin/sh\nexit 100\n")
    code, asked, said = machine.dev("run")
    assert (code, asked) == (0, [SERVE]), "archives that cannot be reached do not keep a server from starting"
    assert "dev: missing, as root: apt-get install curl\n" in said


@pytest.mark.parametrize("path", ["fastq/a.pyx", "setup.py"])
def test_a_changed_source_is_built_again(machine: Machine, path: str) -> None:
    machine.dev("run")
    os.utime(machine.checkout / "build" / "stamp-ext", (1, 1))  # file times are coarser than this test is quick
    os.utime(machine.checkout / path)
    assert machine.dev("run")[1] == [BUILD, SERVE]
    assert machine.dev("run")[1] == [SERVE]
    os.utime(machine.checkout / "build" / "stamp-ext", (1, 1))
    os.utime(machine.checkout / path, (0, 0))
    os.utime(machine.checkout / "fastq" / "a.py")
    assert machine.dev("run")[1] == [SERVE]


def test_a_missing_module_is_built_again(machine: Machine) -> None:
    machine.dev("run")
    (machine.checkout / "fastq" / "a.cpython.so").unlink()
    assert machine.dev("run")[1] == [BUILD, SERVE]


def test_another_cython_or_interpreter_rebuilds_everything(machine: Machine) -> None:
    machine.dev("run")
    (machine.checkout / "requirements" / "run.txt").write_text("cython==4\n")
    _, asked, _ = machine.dev("run")
    assert asked[0].startswith(PIP)
    assert asked[1:] == [f"{BUILD} --force", SERVE]
    (machine.directory / "version").write_text("Python 3.12.1\n")
    assert machine.dev("run")[1][-2:] == [f"{BUILD} --force", SERVE]


def test_a_broken_build_is_shown_and_tried_again(machine: Machine) -> None:
    (machine.directory / "broken").touch()
    code, asked, said = machine.dev("run")
    assert code == 1
    assert SERVE not in asked
    assert "syntax error in a.pyx" in said
    assert machine.dev("run")[1] == [f"{BUILD} --force"]
    (machine.directory / "broken").unlink()
    assert machine.dev("run")[1] == [f"{BUILD} --force", SERVE]


@pytest.mark.parametrize(
    ("lacking", "packages"),
    [("no-venv", "python3-venv"), ("no-headers", "python3-dev"), ("no-cc", "gcc libc6-dev")],
)
def test_missing_packages_are_installed(machine: Machine, lacking: str, packages: str) -> None:
    (machine.directory / lacking).touch()
    code, asked, said = machine.dev("run")
    assert code == 0
    assert asked[:2] == ["apt-get update -qq", f"apt-get install -y --no-install-recommends {packages} -qq"]
    assert said.startswith(f"dev: installing packages: {packages}\n")
    assert asked[-1] == SERVE


def test_without_root_the_needed_packages_are_named(machine: Machine) -> None:
    machine.script("id", "#!/bin/sh\necho 1000\n")
    (machine.directory / "no-cc").touch()
    (machine.directory / "no-venv").touch()
    code, asked, said = machine.dev("run")
    assert (code, asked) == (1, [])
    assert "as root run: apt-get update && apt-get install" in said
    assert "python3-venv gcc libc6-dev" in said


def test_an_install_that_does_not_help_is_reported(machine: Machine) -> None:
    machine.script("apt-get", "#!/bin/sh\n")
    (machine.directory / "no-headers").touch()
    code, _, said = machine.dev("run")
    assert code == 1
    assert "still lacks what these packages bring: python3-dev" in said


def test_an_old_interpreter_is_refused(machine: Machine) -> None:
    (machine.directory / "old").touch()
    code, asked, said = machine.dev("run")
    assert (code, asked) == (1, [])
    assert "older than 3.11" in said


def test_ci_passes_on_only_what_apt_and_pip_need(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy2(ROOT / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / "dev").write_text('#!/bin/sh\necho "$@"\nenv\n')
    (tmp_path / "dev").chmod(0o755)
    needed = {
        "HOME": "/h",
        "PIP_CERT": "/c",
        "PIP_FIND_LINKS": "/w /x",
        "SSL_CERT_FILE": "/s",
        "https_proxy": "http://p",
    }
    others = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": "/else", "WAL_DIR": "/data", "FASTQ_KEY": "k", "VIRTUAL_ENV": "/v"}
    environ = {"PATH": f"/root/.pyenv/shims:{os.environ['PATH']}", **needed, **others}
    done = subprocess.run([tmp_path / ".ci/run"], env=environ, capture_output=True, text=True, check=True)
    command, *lines = done.stdout.splitlines()
    passed = dict(line.split("=", 1) for line in lines if not line.startswith(("PWD=", "SHLVL=", "_=", "OLDPWD=")))
    assert command == "test"
    assert passed.pop("PATH") == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert passed == needed | {"LANG": "C.UTF-8", "PYTHON": "/usr/bin/python3"}


def test_files_named_by_dev_exist() -> None:
    text = (ROOT / "dev").read_text()
    paths = re.findall(r"\btests/[\w/]+(?:\.py)?", text)
    modules = re.findall(r"-m ((?:bench|tests)\.[\w.]+)", text)
    assert len(paths) > 8 and len(modules) > 4
    for path in paths:
        assert (ROOT / path).exists(), path
    for module in modules:
        path = ROOT / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").exists(), module
