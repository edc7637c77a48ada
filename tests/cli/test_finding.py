"""What a command says when a name is wrong, a queue is absent or paused, or nobody can answer; and what it did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fastq import Client, Cron
from fastq.cli import main
from fastq.cli.groups import ELSEWHERE, SAME
from tests.cli.conftest import AtTerminal, Run
from tests.cli.test_input import TREE, started
from tests.client.served import Place
from tests.served import END_S, ROOT, ending

# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAME)
def test_singular_and_plural_are_the_same_command(name: str) -> None:
    usage = CliRunner().invoke(main, [name, "--help"]).stdout
    assert usage == CliRunner().invoke(main, [SAME[name], "--help"]).stdout != ""


@pytest.mark.parametrize("path", [path for path in TREE if len(path[-1]) > 3], ids="-".join)
def test_a_mistyped_command_gets_a_suggestion(path: tuple[str, ...]) -> None:
    """A letter is missing, doubled, or two are swapped."""
    *group, name = path
    for wrong in (name[:2] + name[3:], name[:2] + name[1:], name[0] + name[2] + name[1] + name[3:]):
        if (*group, wrong) not in TREE and wrong not in SAME:
            done = CliRunner().invoke(main, [*group, wrong])
            assert done.exit_code == 2 and f"'{name}'" in done.stderr and "Did you mean" in done.stderr, wrong


def test_words_of_other_queues_get_a_suggestion() -> None:
    for word, group in (("ls", "job"), ("rm", "queues"), ("get", "schedules"), ("enqueue", ""), ("retry", "job")):
        done = CliRunner().invoke(main, [group, word] if group else [word])
        assert f"Did you mean '{ELSEWHERE[word]}'" in done.stderr


@pytest.mark.parametrize("path", TREE, ids="-".join)
def test_a_mistyped_option_gets_a_suggestion(path: tuple[str, ...]) -> None:
    long = [
        name
        for one in TREE[path].params
        if isinstance(one, click.Option)
        for name in one.opts
        if name[:2] == "--" and len(name) > 6
    ]
    for name in long:
        done = CliRunner().invoke(main, [*path, name[:4] + name[5:]])
        assert done.exit_code == 2 and "Did you mean" in done.stderr and name in done.stderr, name


@pytest.mark.parametrize("path", [(), *TREE], ids="-".join)
def test_help_fits_80_columns(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, [*path, "--help"])
    assert done.exit_code == 0 and max(map(len, done.stdout.splitlines())) <= 80


# --- nothing found ----------------------------------------------------------------------------------------------------


def test_an_empty_list_says_why(run: Run, client: Client, queue: str) -> None:
    client.submit(1, queue=queue)
    for command in ("list", "cancel", "delete", "redrive"):
        yes = () if command == "list" else ("--yes",)
        done = run("job", command, "--queue", f"{queue}x", *yes)
        assert done.code == 0 and done.err == f"there is no queue {queue}x: did you mean {queue}?\n"
        assert run("job", command, "--queue", queue, "--state", "dead", *yes).err == "no job matches\n"
    assert run("job", "list", "--queue", queue).err == ""
    assert run("job", "list", "--queue", "nothing-like-it", key="client").err == "there is no queue nothing-like-it\n"


def test_pausing_a_mistyped_queue_does_not_make_it(run: Run, client: Client, queue: str) -> None:
    client.submit(1, queue=queue)
    done = run("queues", "pause", f"{queue}x")
    assert done.code == 1 and f"there is no queue {queue}x: did you mean {queue}?; --create" in done.err
    assert f"{queue}x" not in [one.name for one in client.queues()]
    assert run("queues", "pause", f"{queue}x", "--create").out == f"{queue}x: paused\n"
    assert client.get_queue(f"{queue}x").settings.paused


def test_a_lease_from_a_paused_queue_says_so(run: Run, client: Client, queue: str) -> None:
    client.submit(1, queue=queue)
    client.pause_queue(queue)
    for key in ("admin", "worker"):
        done = run("lease", "--queue", "other", "--queue", queue, key=key)
        assert (done.code, done.err) == (4, f"fastq: no job is ready in other, {queue}; {queue} is paused\n")


def test_live_workers_and_their_queues_are_listed(run: Run, client: Client, queue: str) -> None:
    client.lease([queue, "other"], worker_id=f"w-{queue}")
    (row,) = [line.split("\t") for line in run("workers").lines if line.startswith(f"w-{queue}")]
    assert row[2] == f"{queue} other"
    (shown,) = [one for one in run("workers", "--json").answers if one["worker_id"] == f"w-{queue}"]
    assert shown["queues"] == [queue, "other"]


def test_the_age_of_the_oldest_ready_job_is_listed(run: Run, client: Client, queue: str) -> None:
    client.submit(1, queue=queue)
    head, *rows = (line.split("\t") for line in run("queues", "list").lines)
    (row,) = [row for row in rows if row[0] == queue]
    assert row[head.index("oldest")].endswith("s")


def test_no_message_repeats_itself(run: Run, queue: str) -> None:
    absent = "01a20cc7-8ec2-7154-8000-000000469c9a"
    for text in (
        f"job show {absent}",
        f"job cancel {absent}",
        f"ack {absent} {'0' * 24}",
        f"lease --queue {queue}",
        f"queues show {queue}",
        f"schedules run {queue}",
        "keys revoke client_none",
    ):
        command = text.split()
        said = run(*command).err
        words = said.removeprefix("fastq: ").split(": ")
        assert len(words) == len(set(words)), said


# --- questions --------------------------------------------------------------------------------------------------------

ASK = ("queues purge {}", "job cancel --queue {}", "job delete --queue {}", "job redrive --queue {}")


@pytest.mark.parametrize("command", ASK, ids=range(len(ASK)))
def test_a_question_needs_a_terminal(command: str, place: Place, client: Client, queue: str, run: Run) -> None:
    client.submit(1, queue=queue)
    command = command.format(queue)
    done = run(*command.split(), stdin="y\n")
    assert done.code == 2 and "--yes" in done.err and done.err.count("\n") == 1
    assert client.get_queue(queue).ready == 1


@pytest.mark.parametrize(
    ("typed", "code"), [("n\n", 130), ("\n", 130), ("\x03", 130), ("\x04", 130), ("y\n", 0)], ids=range(5)
)
def test_a_question_on_a_terminal(typed: str, code: int, at_terminal: AtTerminal, client: Client, queue: str) -> None:
    client.submit(1, queue=queue)
    done = at_terminal("queues", "purge", queue, typed=typed)
    assert done.code == code and "Traceback" not in done.out
    assert client.get_queue(queue).ready == 1 if code else done.out.endswith(f"{queue}: 1 job deleted\n")


@pytest.fixture(scope="module")
def interrupting(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("interrupting") / "interrupting.so"
    source = Path(__file__).with_name("interrupting.c")
    subprocess.run(["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", source, "-o", made, "-ldl"], check=True)
    return f"{os.environ.get('LD_PRELOAD', '')} {made}".strip()


def test_ctrl_c_just_before_the_wait_for_an_answer(
    interrupting: str, at_terminal: AtTerminal, client: Client, queue: str
) -> None:
    """The answer would be yes, if the command still waited for one."""
    client.submit(1, queue=queue)
    done = at_terminal("queues", "purge", queue, LD_PRELOAD=interrupting)
    assert done.code == 130 and done.out.endswith("fastq: interrupted\n"), done.out
    assert client.get_queue(queue).ready == 1


# --- what was done ----------------------------------------------------------------------------------------------------


def test_each_change_is_one_line(run: Run, client: Client, queue: str) -> None:
    client.submit(1, queue=queue)
    client.put_schedule(queue, Cron("0 3 1 1 *"), 1)
    (job,) = client.lease([queue])
    held = f"{job.job_id} {job.lease_token}"
    for command, begins in (
        (f"queues set {queue} --fair --rate 5/1s", f"{queue}: fair=yes rate=5/1s"),
        (f"queues pause {queue}", f"{queue}: paused"),
        (f"queues resume {queue}", f"{queue}: resumed"),
        (f"queues purge {queue} --yes", f"{queue}: 0 jobs deleted"),
        (f"extend {held}", f"{job.job_id}: leased until 2"),
        (f"ack {held}", job.job_id),
        (f"job delete {job.job_id}", f"{job.job_id}  deleted"),
        (f"queues delete {queue}", f"{queue}: settings deleted"),
        (f"schedules pause {queue}", f"{queue}: 0 3 1 1 * UTC, paused"),
        (f"schedules resume {queue}", f"{queue}: 0 3 1 1 * UTC, next at 2"),
        (f"schedules delete {queue}", f"{queue}: deleted"),
    ):
        done = run(*command.split())
        assert done.code == 0 and len(done.lines) == 1 and done.out.startswith(begins), (command, done)


@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["text", "json"])
def test_submit_and_wait_prints_the_id_at_once(
    arguments: tuple[str, ...], place: Place, client: Client, queue: str
) -> None:
    """So that it is known after Ctrl-C, and after a kill."""
    env = {"FASTQ_URL": place.url, "FASTQ_KEY": place.keys["admin"]}
    for end in (signal.SIGINT, signal.SIGKILL):
        with ending(started(env, "submit", "1", "--queue", queue, "--wait", *arguments)) as process:
            stream = process.stderr if arguments else process.stdout
            assert stream is not None
            line = stream.readline().decode()
            process.send_signal(end)
            _, said = process.communicate(timeout=END_S)
        (job, *_) = client.list_jobs(queue=queue).items
        assert job.job_id in line
        assert process.returncode == (130 if end == signal.SIGINT else -end) and b"Traceback" not in said


def test_a_server_needs_no_standard_output(tmp_path: Path) -> None:
    """A supervisor may have closed it. Its number must not go to a segment of the log."""
    script = f'exec {sys.executable} -m fastq serve >&- <&- 2>"{tmp_path}/said"'
    env = {
        "PORT": "0",
        "WAL_DIR": str(tmp_path / "data"),
        "PYTHONPATH": str(ROOT),
        "PATH": "/usr/bin:/bin",
        "LOG_FORMAT": "json",
    }
    with subprocess.Popen(["sh", "-c", script], cwd=ROOT, env=env) as process:
        said = tmp_path / "said"
        while process.poll() is None and not (said.exists() and "serv" in said.read_text()):
            pass
        assert process.poll() is None, said.read_text()
        for number in (0, 1):
            assert Path(f"/proc/{process.pid}/fd/{number}").readlink() == Path("/dev/null")
        process.terminate()
        assert process.wait(30) == 0
