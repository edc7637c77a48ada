"""`fastq queues …`, `schedules …`, `workers`, `audit`, `status`, and how commands fail."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fastq import Client, NewJob, QueueSettings, RateLimit, Retention
from fastq.cli import COMMANDS
from fastq.cli.queues import changed
from tests.cli.conftest import AtTerminal, Run
from tests.client.served import Place
from tests.served import ROOT, free_port


def fields(text: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in text.splitlines() if " " in line)


# --- queues -----------------------------------------------------------------------------------------------------------


def test_set_changes_only_the_given_settings(run: Run, client: Client, queue: str) -> None:
    assert run("queues", "set", queue, "--rate", "100/1s", "--fair", "--lease", "1m30s", "--keep-max", "5").code == 0
    done = run("queues", "set", queue, "--concurrency", "5", "--keep-acked", "1h", "--backoff", "1s,2,1h")
    assert done.code == 0, done.err
    shown = fields(run("queues", "show", queue).out)
    assert shown == shown | {
        "fair": "yes", "rate": "100/1s", "concurrency": "5", "lease": "1m30s", "keep-acked": "1h", "keep-max": "5",
        "backoff": "1s,2,1h", "ready": "0",
    }  # fmt: skip
    run("queues", "set", queue, "--unfair", "--unset", "rate", "--unset", "keep-acked")
    settings = client.get_queue(queue).settings
    assert not settings.fair and settings.rate_limit is None and settings.retention == Retention(max=5)
    assert settings.concurrency == 5
    refused = run("queues", "set", queue, "--concurrency", "0")
    assert refused.code == 1 and "concurrency must be >= 1" in refused.err


def test_an_option_overrides_unset() -> None:
    before = QueueSettings(rate_limit=RateLimit(1, 1000), retention=Retention(max=1))
    rate = {"rate": RateLimit(2, 1000), "max_kept": 0}
    after = changed(before, rate, ("rate", "keep-max", "lease"))
    assert after == QueueSettings(rate_limit=RateLimit(2, 1000), retention=Retention(max=0))
    assert changed(before, {}, ("rate", "keep-max")) == QueueSettings()


def test_pause_purge_and_delete_a_queue(run: Run, at_terminal: AtTerminal, client: Client, queue: str) -> None:
    client.submit(1, queue=queue)
    assert run("queues", "pause", queue).out == f"{queue}: paused\n"
    (row,) = [line for line in run("queues", "list").lines if line.startswith(queue)]
    assert row.split("\t")[1:4] == ["1", "0", "0"] and row.endswith("paused=yes")
    assert run("queues", "resume", queue).out == f"{queue}: resumed\n"
    assert run("queues", "delete", queue).code == 1
    assert run("queues", "purge", queue, stdin="y\n").code == 2 and client.get_queue(queue).ready == 1
    assert at_terminal("queues", "purge", queue, typed="n\n").code == 130 and client.get_queue(queue).ready == 1
    assert at_terminal("queues", "purge", queue, typed="y\n").out.endswith(f"{queue}: 1 job deleted\n")
    assert run("queues", "delete", queue).out == f"{queue}: settings deleted\n"
    assert run("queues", "show", queue).code == 1


# --- schedules --------------------------------------------------------------------------------------------------------


def test_set_run_and_delete_a_schedule(run: Run, client: Client, queue: str) -> None:
    options = ("--timezone", "Europe/Vienna", "--overlap", "allow", "--queue", queue, "--priority", "3")
    put = run("schedules", "set", queue, "0 3 1 1 *", '{"a":1}', *options, "--json").answer
    assert put["job"] == {"payload": {"a": 1}, "queue": queue, "priority": 3}
    assert run("schedules", "show", queue, "--json").answer == put
    job_id = run("schedules", "run", queue).out.strip()
    assert client.get(job_id).priority == 3
    (row,) = [line for line in run("schedules", "list").lines if line.startswith(queue)]
    assert "Europe/Vienna" in row and job_id in row
    assert run("schedules", "pause", queue).out == f"{queue}: 0 3 1 1 * Europe/Vienna, paused\n"
    assert run("schedules", "show", queue, "--json").answer["paused"] is True
    assert run("schedules", "resume", queue).out.startswith(f"{queue}: 0 3 1 1 * Europe/Vienna, next at 2")
    assert run("schedules", "delete", queue).out == f"{queue}: deleted\n"
    assert run("schedules", "show", queue).code == 1
    wrong = run("schedules", "set", queue, "at noon", "1")
    assert wrong.code == 1 and wrong.err.count("\n") == 1 and "cron" in wrong.err


# --- the server -------------------------------------------------------------------------------------------------------


def test_workers(run: Run, client: Client, queue: str) -> None:
    job_id = client.submit(1, queue=queue).job_id
    client.lease([queue], worker_id=f"w-{queue}")
    (row,) = [line for line in run("workers").lines if line.startswith(f"w-{queue}")]
    assert job_id in row
    assert f"w-{queue}" in [worker["worker_id"] for worker in run("workers", "--json").answers]


def test_audit(run: Run, client: Client, queue: str) -> None:
    client.pause_queue(queue, create=True)
    client.resume_queue(queue)
    newest = run("audit", "--limit", "2", "--json").answers
    assert [entry["target"] for entry in newest] == [queue, queue]
    assert queue in run("audit").lines[1]
    assert run("audit", key="client").err == "fastq: Admin access required (403 forbidden)\n"


def test_status(run: Run, client: Client, queue: str) -> None:
    before = run("status", "--json").answer
    client.submit(1, queue=queue)
    after = run("status", "--json").answer
    assert after["ready"] is True and after["jobs"]["ready"] == before["jobs"]["ready"] + 1
    assert fields(run("status").out)["server"] == "takes work"


# --- how commands fail ------------------------------------------------------------------------------------------------


def test_failures_are_one_line_and_a_code(run: Run, place: Place) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    for arguments, environ, code, message in (
        (("status", "--retry-for", "0"), {"FASTQ_URL": nowhere}, 3, f"{nowhere}: no connection to"),
        (("status",), {"FASTQ_URL": nowhere, "FASTQ_RETRY_FOR": "50ms"}, 3, "no connection"),
        (("status",), {"FASTQ_URL": "localhost"}, 2, "url must be"),
        (("status",), {"key": ""}, 2, "no API key: set FASTQ_KEY"),
        (("status",), {"key": "nonsense"}, 1, "(401 unauthenticated)"),
        (("queues", "pause", "q"), {"key": "client"}, 1, "(403 forbidden)"),
        (("nothing",), {}, 2, "No such command 'nothing'"),
        (("job", "show"), {}, 2, "Missing argument 'JOB_ID' (see "),
        (("lease", "--max", "0"), {}, 2, "Invalid value for '--max'"),
    ):
        done = run(*arguments, **environ)  # type: ignore[arg-type] # a mixture
        assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), (arguments, done)
        assert done.err.startswith("fastq: ") and message in done.err


def test_the_key_is_in_a_file(run: Run, place: Place, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(place.keys["admin"] + "\n")
    assert run("status", "--key-file", str(path), key="").code == 0
    assert run("status", FASTQ_KEY_FILE=str(path), key="").code == 0


def test_a_closed_pipe_ends_a_command_quietly(place: Place, client: Client, queue: str) -> None:
    client.submit_many(["x"] * 3000)
    command = f"{sys.executable} -m fastq job list --all | head -1"
    env = os.environ | {"FASTQ_URL": place.url, "FASTQ_KEY": place.keys["admin"]}
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("job_id") and done.stderr == ""


def test_every_command_has_help(run: Run) -> None:
    for name in COMMANDS:
        done = run(name, "--help")
        assert done.code == 0 and done.out.startswith("Usage: "), name
    assert run().code == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes(tmp_path: Path) -> None:
    """bash itself, with the script that we print."""
    program = tmp_path / "fastq"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from fastq.__main__ import main; main()" "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(fastq completion bash)"; COMP_WORDS=(fastq job re); COMP_CWORD=2; _fastq_completion fastq; '
        'echo "${COMPREPLY[@]}"'
    )
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "LD_PRELOAD": ""}
    done = subprocess.run(["bash", "--norc", "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["redrive", "resubmit"], done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_scripts_of_other_shells(run: Run, shell: str) -> None:
    assert f"_FASTQ_COMPLETE={shell}_complete" in run("completion", shell).out


def test_a_pause_has_a_reason_and_an_end(run: Run, client: Client, queue: str) -> None:
    client.submit(1, queue=queue)
    paused = run("queues", "pause", queue, "--reason", "SMTP moves", "--for", "1h").out
    until = client.get_queue(queue).settings.pause_until
    assert until is not None and 3500 < (until - datetime.now(UTC)).total_seconds() < 3700
    assert paused.startswith(f"{queue}: paused: SMTP moves, until ")
    line = next(line for line in run("queues", "list").lines if line.startswith(f"{queue}\t"))
    assert "paused: SMTP moves" in line
    assert run("queues", "set", queue, "--fair").code == 0
    assert client.get_queue(queue).settings.pause_reason == "SMTP moves", "a set leaves the pause as it is"
    (job,) = client.jobs(queue=queue)
    assert client.why(job.job_id).pause_reason == "SMTP moves"
    run("queues", "resume", queue)
    assert client.get_queue(queue).why.code == "no_worker"
    both = run("queues", "pause", queue, "--for", "1h", "--until", "2030-01-01T00:00:00Z")
    assert both.code == 2


def test_a_change_of_many_jobs_shows_its_progress_on_a_terminal(
    at_terminal: AtTerminal, client: Client, queue: str
) -> None:
    client.submit_many([NewJob(payload=n, queue=queue) for n in range(30)])
    shown = at_terminal("job", "cancel", "--queue", queue, "--yes", "--pace", "15").out
    assert "30/" in shown or "30 " in shown, shown
    assert "30 matched, 30 changed" in shown
    purged = at_terminal("queues", "purge", queue, "--yes").out
    assert "0 jobs deleted" in purged


def test_ctrl_c_stops_a_change_and_says_how_to_go_on(place: Place, client: Client, queue: str) -> None:
    client.submit_many([NewJob(payload=n, queue=queue) for n in range(60)])
    env = os.environ | {"FASTQ_URL": place.url, "FASTQ_KEY": place.keys["admin"]}
    command = [sys.executable, "-m", "fastq", "job", "delete", "--queue", queue]
    process = subprocess.Popen(
        [*command, "--yes", "--pace", "10"], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True
    )
    while client.get_queue(queue).ready > 45:
        pass
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130 and "stopped: " in said
    left = sum(1 for _ in client.jobs(queue=queue))
    assert 0 < left <= 45
    cursor = said.split("--cursor ")[1].split()[0]
    done = subprocess.run(
        [*command, "--yes", "--cursor", cursor], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout.endswith("changed\n"), done.stderr
    assert list(client.jobs(queue=queue)) == []


def test_an_interval_in_place_of_a_cron_expression(run: Run, client: Client, queue: str) -> None:
    said = run("schedules", "set", queue, "@every 5m", "1", "--queue", queue).out
    assert said.startswith(f"{queue}: @every 5m, next at ")
    assert client.get_schedule(queue).every_ms == 300_000 and len(client.get_schedule(queue).next_runs) == 5
    job_id = run("schedules", "run", queue).out.strip()
    row = next(line for line in run("schedules", "list").lines if line.startswith(f"{queue}\t")).split("\t")
    assert row[1] == "@every 5m" and job_id in row and "READY" in row
    assert run("schedules", "set", queue, "@every 5m", "1", "--timezone", "Europe/Vienna").code == 2
    client.delete_schedule(queue)


# --- failures ---------------------------------------------------------------------------------------------------------


def test_failures_are_listed_with_their_counts(run: Run, client: Client, queue: str) -> None:
    for _ in range(2):
        client.submit(1, queue=queue, max_retries=0)
        (leased,) = client.lease([queue])
        client.fail(leased, "no such host\nand more", code="E7")
    (group,) = client.failures(queue).groups
    assert (group.error, group.error_code, group.count) == ("no such host", "E7", 2)
    done = run("failures", "--queue", queue, "--since", "1h")
    (row,) = [line for line in done.lines if line.startswith(queue)]
    assert row.split("\t")[1] == "2" and "no such host" in row
    assert run("failures", "--queue", queue, "--json").answers[0]["count"] == 2
    assert not any(line.startswith("absent") for line in run("failures", "--queue", "absent").lines)
