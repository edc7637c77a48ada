"""Standard error comes after the standard output printed before it, even if both go to one pipe."""

from __future__ import annotations

import subprocess
import sys

from tests.served import ROOT

NOTICES = """
import sys
from fastq.cli.notices import confirm, notice
sys.stdin.isatty = lambda: True
print("table")
notice("more")
print("matched")
confirm("cancel")
print("done")
"""
FAILURE = """
import click
from fastq.cli import main

@click.command()
def broken():
    print("table")
    raise click.ClickException("refused")

main.get_command = lambda _ctx, _name: broken
main(["broken"])
"""


def to_one_pipe(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, input="y\n", text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.stdout


def test_a_notice_and_a_question_come_after_the_output_before_them() -> None:
    assert to_one_pipe(NOTICES) == "table\nmore\nmatched\ncancel [y/N]: done\n"


def test_a_failure_comes_after_the_output_before_it() -> None:
    assert to_one_pipe(FAILURE) == "table\nfastq: refused\n"
