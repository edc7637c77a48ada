"""Input that is not UTF-8, closed and full streams, interrupts: one line and an exit code, in every command.

The commands are found in the click tree, so that a new one is tested too.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import termios
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import click
import pytest
from click.testing import CliRunner

from fastq import Client
from fastq.cli import main
from tests.client.served import Place
from tests.served import END_S, ROOT, ending

LATIN_1 = b'"caf\xe9"\n'
NOT_TEXT = os.fsdecode(b"caf\xe9")
INPUTS = (LATIN_1, b"\xff\xfe\x00", b'{"payload":"caf\xe9"}\n', b"\x00", b"\xef\xbb\xbf", b"[" * 100_000, b"-\n1\n")
HOSTILE = ("", "\x1b[31mred", "-1", "9" * 5_000, "1e400", "..", "a/b", "%", "\u202e\u2066", "🎉" * 100, "\n")
LONG_RUNNING = ("serve", "worker", "chaos")  # they are started below with bad arguments only


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    with click.Context(group) as ctx:
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            if isinstance(command, click.Group):
                yield from commands(command, (*path, name))
            elif command is not None:
                yield (*path, name), command


TREE = dict(commands())
each_command = pytest.mark.parametrize("path", TREE, ids="-".join)


def program(*arguments: str | bytes, env: dict[str, Any], **options: Any) -> subprocess.CompletedProcess[bytes]:
    done: Any = subprocess.run(
        [sys.executable, "-m", "fastq", *arguments], cwd=ROOT, check=False, timeout=60,
        env=os.environ | env, **({"capture_output": True} | options),
    )  # fmt: skip
    return cast("subprocess.CompletedProcess[bytes]", done)


@pytest.fixture
def env(place: Place) -> dict[str, str]:
    return {"FASTQ_URL": place.url, "FASTQ_KEY": place.keys["admin"], "FASTQ_RETRY_FOR": "0"}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory for the files that commands write."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fails_plainly(done: subprocess.CompletedProcess[bytes], code: int) -> str:
    said = done.stderr.decode()
    assert done.returncode == code, done
    assert said.startswith("fastq: ") and said.count("\n") == 1, said
    return said


# --- not UTF-8 --------------------------------------------------------------------------------------------------------


@each_command
def test_an_argument_that_is_not_utf_8_is_wrong_usage(path: tuple[str, ...]) -> None:
    options = [name for one in TREE[path].params if isinstance(one, click.Option) for name in one.opts[:1]]
    for arguments in ([NOT_TEXT], *([name, NOT_TEXT] for name in options)):
        done = CliRunner().invoke(main, [*path, *arguments], catch_exceptions=False)
        assert done.exit_code == 2 and done.stderr.endswith("is not UTF-8: byte 0xe9 at offset 3\n"), done.output


def test_arguments_are_utf_8_whatever_the_locale_is(env: dict[str, str], client: Client, queue: str) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = program("submit", '"café"', "--queue", queue, env=env | plain)
    assert client.get(done.stdout.decode().strip(), with_payload=True).payload == "café"
    fails_plainly(program(b"submit", b'"caf\xe9"', env=env | plain), 2)


@each_command
@pytest.mark.parametrize("name", ["FASTQ_KEY", "FASTQ_URL", "FASTQ_KEY_FILE", "FASTQ_RETRY_FOR"])
def test_a_variable_that_is_not_utf_8_is_wrong_usage(path: tuple[str, ...], name: str) -> None:
    done = CliRunner().invoke(main, [*path], env={name: NOT_TEXT}, catch_exceptions=False)
    assert done.exit_code == 2 and done.stderr == f"fastq: {name} is not UTF-8: byte 0xe9 at offset 3\n"


def test_a_setting_that_is_not_utf_8_stops_the_start() -> None:
    for name in ("WAL_DIR", "HOST", "REDIS_URL", "LOG_FORMAT"):
        done = CliRunner().invoke(main, ["serve"], env={name: NOT_TEXT}, catch_exceptions=False)
        assert done.exit_code == 78 and done.stderr == f"fastq: {name} is not UTF-8: byte 0xe9 at offset 3\n"


JOB_ID = "01a20cc7-8ec2-7154-8000-000000469c9a"
READS = {
    ("submit", "-"): "standard input",
    ("submit", "-", "--text"): "standard input",
    ("submit", "--lines", "-"): "line 1",
    ("submit", "--lines", "-", "--text"): "line 1",
    ("import",): "line 1",
    ("ack", "-"): "line 1",
    ("ack", JOB_ID, "t", "--result", "-"): "standard input",
    ("job", "edit", JOB_ID, "--payload", "-"): "standard input",
    ("schedules", "set", "s", "* * * * *", "-"): "standard input",
}


@pytest.mark.parametrize("command", READS, ids=" ".join)
def test_standard_input_that_is_not_utf_8_is_wrong_usage(
    command: tuple[str, ...], env: dict[str, str], client: Client
) -> None:
    before = sum(1 for _ in client.jobs())
    done = CliRunner().invoke(main, list(command), input=LATIN_1, env=env, catch_exceptions=False)
    assert done.exit_code == 2 and f"{READS[command]} is not UTF-8: byte 0xe9 at offset 4" in done.stderr
    assert sum(1 for _ in client.jobs()) == before


def test_the_error_names_the_line(env: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b'"a"\n' * 2 + LATIN_1)
    for arguments in (("--lines", str(path)), ("--lines", str(path), "--text")):
        assert "line 3 is not UTF-8: byte 0xe9 at offset 4" in fails_plainly(program("submit", *arguments, env=env), 2)
    done = program("submit", "-", "--text", env=env, input=b"a\nb\n" + LATIN_1)
    assert "standard input is not UTF-8: byte 0xe9 at offset 8 (line 3)" in fails_plainly(done, 2)


def test_a_key_file_that_holds_no_key_is_named(env: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "key"
    for content in (b"", b"\xff\xfek\x00", "schlüssel".encode(), b"a b", b"a\x00b"):
        path.write_bytes(content)
        assert str(path) in fails_plainly(program("status", "--key-file", str(path), env=env), 2)


# --- hostile input ----------------------------------------------------------------------------------------------------


@each_command
@pytest.mark.parametrize("content", INPUTS, ids=range(len(INPUTS)))
def test_no_standard_input_ends_in_a_traceback(
    path: tuple[str, ...], content: bytes, env: dict[str, str], elsewhere: Path
) -> None:
    if path[0] in LONG_RUNNING:
        return
    wanted = ["-" for one in TREE[path].params if isinstance(one, click.Argument) and one.required]
    for arguments in (wanted, [*wanted, "--lines", "-"], [*wanted, "--text"]):
        done = CliRunner().invoke(main, [*path, *arguments], input=content, env=env, catch_exceptions=False)
        assert done.exit_code in (0, 1, 2, 4, 65, 73, 74), (arguments, done.output)


@each_command
@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_no_argument_ends_in_a_traceback(
    path: tuple[str, ...], value: str, env: dict[str, str], elsewhere: Path
) -> None:
    """Each argument and option in turn; what a terminal would obey is escaped."""
    if path[0] in LONG_RUNNING:
        return
    fitting = {"directory": str(elsewhere), "destination": "backup", "shell": "bash", "cron": "* * * * *"}
    wanted = [one.name or "" for one in TREE[path].params if isinstance(one, click.Argument)]
    plain = [fitting.get(name, "1") for name in wanted]
    tried = [[*plain[:i], value, *plain[i + 1 :]] for i in range(len(plain))]
    options = [one for one in TREE[path].params if isinstance(one, click.Option) and not one.is_flag]
    tried += [[*plain, f"{one.opts[0]}={value}"] for one in options]
    for arguments in tried:
        done = CliRunner().invoke(main, [*path, *arguments], env=env, catch_exceptions=False)
        assert done.exit_code in (0, 1, 2, 3, 4, 65, 73, 74, 75), (arguments, done.output)
        assert not any(one in done.output for one in "\x1b\u202e\u2066\x00"), (arguments, done.output)


def test_a_payload_with_line_ends_stays_on_one_line(env: dict[str, str], client: Client, queue: str) -> None:
    payload = '{"to":\n"ann",\r\n\t"text":"a\u2028b\u009bc\u202e"}'
    job_id = program("submit", "-", "--queue", queue, env=env, input=payload.encode()).stdout.decode().strip()
    exported = program("export", "--queue", queue, env=env).stdout
    assert exported.count(b"\n") == 1
    assert b"1 submitted" in program("import", "--queue", f"{queue[:50]}.copy", env=env, input=exported).stdout
    (copy,) = client.jobs(queue=f"{queue[:50]}.copy")
    assert client.get(copy.job_id, with_payload=True).payload == client.get(job_id, with_payload=True).payload
    leased = program("lease", "--queue", queue, "--json", env=env).stdout
    assert leased.count(b"\n") == 1 and b"\\u009b" in leased and b"\\u202e" in leased and b"\\u2028" in leased
    assert program("ack", "-", env=env, input=leased).stdout.decode().strip() == job_id


def test_a_line_of_input_is_a_payload_not_a_command(env: dict[str, str], client: Client, queue: str) -> None:
    """`-` in a line is not standard input; text keeps its spaces; a byte order mark is not part of it."""
    done = program("submit", "--lines", "-", "--text", "--queue", queue, env=env, input=b"\xef\xbb\xbf- \n -\r\n\n-")
    payloads = [client.get(one, with_payload=True).payload for one in done.stdout.decode().split()]
    assert payloads == ["- ", " -", "-"]


# --- streams ----------------------------------------------------------------------------------------------------------

SHOWS = (
    ("queues", "list"),
    ("job", "list", "--all"),
    ("status",),
    ("job", "list", "--json"),
    ("keys", "list"),
    ("submit", "1"),
)


@pytest.mark.parametrize("command", SHOWS, ids=" ".join)
def test_output_that_cannot_be_written_is_a_failure(
    command: tuple[str, ...], env: dict[str, str], client: Client
) -> None:
    client.submit_many(["x"] * 300)
    with open("/dev/full", "wb") as full:
        done = program(*command, env=env, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert "standard output: No space left on device" in fails_plainly(done, 74)
    closed = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", sys.executable, "-m", "fastq", *command], cwd=ROOT, env=os.environ | env,
        stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    assert "standard output: Bad file descriptor" in fails_plainly(closed, 74)


def test_a_closed_stream_lends_its_number_to_nothing(env: dict[str, str]) -> None:
    """Else a socket would be 0, 1 or 2, and get what is printed."""
    script = '"$@" submit 1 2>&- <&-; "$@" submit - <&-; "$@" job show nope 2>&-'
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-m", "fastq"], cwd=ROOT, env=os.environ | env, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 1
    assert done.stderr == "fastq: standard input: Bad file descriptor\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252:strict"], ids=["ascii", "latin-1", "cp1252"])
def test_any_text_can_be_printed_in_any_encoding(
    encoding: str, env: dict[str, str], client: Client, queue: str
) -> None:
    job_id = client.submit("日本語 🎉 é", queue=queue).job_id
    (job,) = client.lease([queue], worker_id="wörker-日本")
    client.fail(job, "接続 🎉", discard=True)
    said = env | {"PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    for command in (("show", job_id, "--payload", "--attempts"), ("list", "--queue", queue)):
        done = program("job", *command, env=said)
        assert (done.returncode, done.stderr) == (0, b""), done
    shown = program("job", "show", job_id, "--payload", "--json", env=said).stdout
    assert client.get(job_id, with_payload=True).payload in shown.decode("unicode_escape").encode(
        "utf-16", "surrogatepass"
    ).decode("utf-16")


def test_a_reader_that_leaves_ends_a_command_quietly(env: dict[str, str], client: Client) -> None:
    client.submit_many(["x"] * 3000)
    for command in ("job list --all", "job list --all --json", "export"):
        script = f"{sys.executable} -m fastq {command} 2>said; echo $? >&2; cat said >&2"
        with tempfile.TemporaryDirectory() as directory:
            done = subprocess.run(
                ["sh", "-c", f"({script}) | head -1"], cwd=directory, capture_output=True, text=True, check=True,
                env=os.environ | env | {"PYTHONPATH": str(ROOT)},
            )  # fmt: skip
        assert done.stderr == "141\n"


@contextlib.contextmanager
def asked(answer: bytes = b"") -> Iterator[tuple[str, Callable[[], None]]]:
    """A server that answers the first request with `answer`, if it is given, and no other one.

    Gives its URL, and a function that waits for the request without an answer.
    """
    with contextlib.ExitStack() as kept:
        listener = kept.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(30)

        def request() -> socket.socket:
            connection = kept.enter_context(listener.accept()[0])
            assert connection.recv(1000)
            return connection

        def until_asked() -> None:
            if answer:
                request().sendall(answer)
            request()

        yield f"http://127.0.0.1:{listener.getsockname()[1]}", until_asked


def interrupted(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=END_S)
    assert (process.returncode, said) == (130, b"fastq: interrupted\n")


def state(pid: int) -> str:
    """A process's state as the kernel says it: S sleeps."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def started(env: dict[str, str], *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "fastq", *command], cwd=ROOT, env=os.environ | env,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


ASKS = (
    "submit 1",
    "lease --wait 1m",
    "queues list",
    "status",
    "backup /tmp/never",
    "keys list",
    "export",
    "job cancel x --wait",
)


@pytest.mark.parametrize("command", ASKS)
def test_an_interrupt_ends_a_request(command: str, env: dict[str, str]) -> None:
    with asked() as (url, until_asked), ending(started(env | {"FASTQ_URL": url}, *command.split())) as process:
        until_asked()
        interrupted(process)


def test_an_interrupt_ends_an_export_at_once(env: dict[str, str]) -> None:
    """Its threads wait for answers."""
    job = {"job_id": "01a20cc7-8ec2-7154-8000-000000469c9a", "state": "READY", "attempts": 0, "max_retries": 3}
    page = json.dumps({"jobs": [job | {"created_at": "2030-01-01T00:00:00Z"}] * 20})
    with (
        asked(f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(page)}\r\n\r\n{page}".encode()) as (
            url,
            until_asked,
        ),
        ending(started(env | {"FASTQ_URL": url}, "export")) as process,
    ):
        until_asked()
        interrupted(process)


@pytest.mark.parametrize("command", ["submit -", "submit --lines -", "import", "ack -"])
def test_an_interrupt_ends_the_reading_of_input(command: str, env: dict[str, str]) -> None:
    with ending(started(env, *command.split())) as process:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        left = array("i", [1])
        while left[0]:  # until it was read
            fcntl.ioctl(process.stdin, termios.FIONREAD, left)
            os.sched_yield()
        while state(process.pid) != "S":  # until it waits for more
            os.sched_yield()
        interrupted(process)
