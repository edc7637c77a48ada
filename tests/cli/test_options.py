"""What the SDK can ask for, a command can ask for too."""

from __future__ import annotations

import click
import pytest

from fastq import Client
from fastq.cli.job import job
from fastq.cli.submit import submit
from fastq.cli.transfer import export_jobs
from fastq.client.models import JobFilter, JobOptions
from tests.cli.conftest import Run


def names_of(command: click.Command) -> set[str]:
    """The parameters of a command, and its options as parameters are spelled."""
    spelled = {one.lstrip("-").replace("-", "_") for param in command.params for one in param.opts}
    return spelled | {param.name for param in command.params if param.name is not None}


def test_submit_has_every_option_of_a_job() -> None:
    assert JobOptions.__annotations__.keys() <= names_of(submit)


def test_max_attempts_is_max_retries(run: Run, client: Client, queue: str) -> None:
    job_id = run("submit", "1", "--queue", queue, "--max-attempts", "7").out.strip()
    assert client.get(job_id).max_retries == 7


@pytest.mark.parametrize("command", [job.commands["list"], export_jobs], ids=["job list", "export"])
def test_lists_have_every_filter(command: click.Command) -> None:
    assert JobFilter.__annotations__.keys() <= names_of(command)
