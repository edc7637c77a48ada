"""docs/cli.md: each command in it is run, in order, and prints what is written there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.served import ROOT, Served

DOCUMENT = ROOT / "docs/cli.md"
MARK = "@@@"
LEARNED = "JOB=… TOKEN=…"  # a person copies these

# What is another one each time.
CHANGING = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}"), "JOB"),
    (re.compile(r"\b[0-9a-f]{24}\b"), "TOKEN"),
    (re.compile(r"\b(client|worker|admin)_[A-Za-z0-9_-]{32}"), r"\1_SECRET"),
    (re.compile(r"\b(client|worker|admin)_[A-Za-z0-9_-]{12}"), r"\1_ID"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z"), "TIME"),
    (re.compile(r"--cursor \S+"), "--cursor PAGE"),
    (re.compile(r" +"), " "),
)


def blocks(text: str) -> list[tuple[str, str]]:
    """(command, what it prints) of all of them."""
    consoles = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    found = [
        piece.partition("\n") for console in consoles for piece in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]
    ]
    return [(command.split("    #")[0].strip(), output) for command, _, output in found]


def settled(text: str) -> str:
    for pattern, name in CHANGING:
        text = pattern.sub(name, text)
    return text.strip()


def printed(commands: list[str], directory: Path, server: Served) -> list[str]:
    """By a shell that runs them one after the other."""
    script = [f'fastq() {{ {sys.executable} -m fastq "$@"; }}']
    for command in commands:
        if command == LEARNED:
            command = "JOB=$(sed -n 's/^job_id *//p' said) TOKEN=$(sed -n 's/^lease_token *//p' said)"
        if command.startswith("fastq lease --queue mail"):
            command += " | tee said"
        script += [f"echo {MARK}", command]
    env = os.environ | {
        "FASTQ_URL": f"http://127.0.0.1:{server.port}", "FASTQ_KEY": server.keys["admin"], "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(
        ["sh", "-c", "\n".join(script)], cwd=directory, env=env, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.stdout.split(f"{MARK}\n")[1:]


def test_every_command_prints_what_is_written(tmp_path: Path) -> None:
    written = [(command, output) for command, output in blocks(DOCUMENT.read_text()) if "export FASTQ" not in command]
    with Served(tmp_path / "data") as server:
        outputs = printed([command for command, _ in written], tmp_path, server)
    assert len(outputs) == len(written) > 25
    for (command, expected), output in zip(written, outputs, strict=True):
        assert settled(output) == settled(expected), command
