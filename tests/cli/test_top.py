"""`fastq top` on real terminals: what it shows, in every size, its keys, and a server that goes away."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Self

import pytest
from rich.text import Text

from fastq import Client, NewJob, QueueSettings
from fastq.cli.tables import columns_of
from fastq.cli.top_screen import Seen, View, headline, screen
from fastq.client.operator_models import Queue, QueueWhy
from fastq.client.stats_models import Latencies, LogStats, MemoryStats, Quantiles, QueueStats, Stats
from fastq.clock import monotonic_us
from tests.cli.conftest import Run
from tests.client.served import Place
from tests.served import END_S, ROOT, Served, free_port

SEQUENCE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])")


class Screen:
    """A program on a terminal of a given size, and what the terminal shows of it.

    It knows the sequences that `fastq top` uses: go to a place, erase, colours, and the second screen.
    """

    def __init__(self, *arguments: str, columns: int, lines: int, **environ: str) -> None:
        self._ours, theirs = pty.openpty()
        self.set_size(columns, lines)
        env = {name: text for name, text in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastq", "top", *arguments], cwd=ROOT,
            env=env | {"TERM": "xterm-256color"} | environ,
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=partial(fcntl.ioctl, 0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 -- one thread; Ctrl-C
        )  # fmt: skip
        self._theirs = theirs
        self._printed = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def set_size(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def kill(self, number: int) -> None:
        self._process.send_signal(number)

    def until(self, is_there: Callable[[list[str]], bool]) -> list[str]:
        """The next whole frame that is so, as its lines. Frames begin at the upper left and fill the terminal."""
        begun = len(self._printed)
        deadline_us = monotonic_us() + END_S * 1_000_000
        while monotonic_us() < deadline_us:
            for frame in self._printed[begun:].split("\x1b[H")[1:]:
                lines = SEQUENCE.sub("", frame).replace("\r", "").split("\n")
                if len(lines) == self.lines and columns_of(lines[-1]) == self.columns and is_there(lines):
                    return lines
            self._read()
        raise AssertionError(f"not shown within {END_S} s: {self._printed[begun:]!r}")

    def _read(self) -> None:
        if select.select([self._ours], [], [], 0.2)[0]:
            self._printed += os.read(self._ours, 65536).decode()

    def ended(self) -> int:
        """The exit code. The screen before it is back, with a cursor, and keys are echoed as before."""
        code = self._process.wait(END_S)
        self._read()
        assert self._printed.rstrip().endswith("\x1b[?25h") or "\x1b[?1049l" in self._printed
        assert "\x1b[?25h" in self._printed.rpartition("\x1b[?25l")[2]
        assert termios.tcgetattr(self._theirs)[3] & termios.ECHO
        return code


def has(text: str) -> Callable[[list[str]], bool]:
    return lambda lines: any(text in line for line in lines)


@pytest.fixture(scope="module", autouse=True)
def _data(place: Place) -> None:
    with Client(place.url, place.keys["admin"]) as client:
        client.submit_many([NewJob(payload=1, queue="mail")] * 41)
        client.submit_many([NewJob(payload=1, queue="n" * 64)] * 3)
        client.submit("x", queue="fails", max_retries=1)
        (job,) = client.lease(["fails"])
        client.fail(job, "KeyError: \x1b[2J 'to'", discard=True, code="KeyError")
        client.pause_queue("mail", reason="the provider is down")


@pytest.fixture
def top(place: Place) -> Callable[..., Screen]:
    def start(*arguments: str, columns: int = 80, lines: int = 24, key: str = "admin", **environ: str) -> Screen:
        env = {"FASTQ_URL": place.url, "FASTQ_KEY": place.keys[key], **environ}
        return Screen(*arguments, columns=columns, lines=lines, **env)

    return start


@pytest.mark.parametrize(
    ("columns", "lines", "text"),
    [(80, 24, "mail "), (132, 43, "mail "), (40, 12, "mail "), (20, 5, "q quit"), (300, 100, "mail ")],
)
def test_the_screen_fits_the_terminal(columns: int, lines: int, text: str, top: Callable[..., Screen]) -> None:
    with top(columns=columns, lines=lines) as shown:
        frame = shown.until(lambda frame: "Z" in frame[0] and has(text)(frame))
        assert {columns_of(line) for line in frame} == {columns}
        shown.type("q")
        assert shown.ended() == 0


def test_an_80_by_24_terminal_shows_whether_work_moves_and_why_not(top: Callable[..., Screen]) -> None:
    with top() as shown:
        text = "\n".join(shown.until(has("WHY")))
        for expected in (
            "44 runnable",
            "0 running",
            "3 queues",
            "fails: KeyError: \\x1b[2J 'to'",
            "submitted",
            "p99",
            "paused: the provider is",
            "q quit",
        ):
            assert expected in text, text
        shown.type("\x03")
        assert shown.ended() == 0


def test_it_is_live_and_a_pause_holds_it(top: Callable[..., Screen], client: Client) -> None:
    with top("--interval", "100ms") as shown:
        shown.until(has("WHY"))
        client.submit_many([NewJob(payload=1, queue="live")] * 7)
        shown.until(has("live"))
        shown.type("p")
        shown.until(lambda lines: "paused" in lines[0])
        client.submit_many([NewJob(payload=1, queue="later")] * 7)
        shown.type("p")
        shown.until(lambda lines: "paused" not in lines[0] and has("later")(lines))
        shown.kill(signal.SIGTERM)
        assert shown.ended() == 0


def test_a_terminal_that_is_resized_is_filled_again(top: Callable[..., Screen]) -> None:
    with top("--interval", "1h") as shown:
        shown.until(has("WHY"))
        for columns, lines in ((132, 43), (60, 15), (80, 24)):
            shown.set_size(columns, lines)
            frame = shown.until(has("mail"))
            assert len(frame) == lines
            assert {columns_of(line) for line in frame} == {columns}
        shown.type("q")
        assert shown.ended() == 0


def test_a_server_that_is_down_is_named_and_tried_again(tmp_path: Path, top: Callable[..., Screen]) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with Served(tmp_path / "data", PORT=str(port)) as server:
        keys = Place(server).keys
    with top("--interval", "100ms", FASTQ_URL=url, FASTQ_KEY=keys["admin"]) as shown:
        shown.until(has("Trying again."))
        with Served(tmp_path / "data", PORT=str(port)):
            shown.until(has("No jobs yet."))
        frame = shown.until(has("Trying again."))
        assert has("0 runnable")(frame), "the last figures stay"
        shown.type("q")
        assert shown.ended() == 0


def test_a_client_key_sees_its_own(place: Place, top: Callable[..., Screen], run: Run) -> None:
    with Client(place.url, place.keys["client"]) as mine:
        mine.submit_many([NewJob(payload=1, queue="own")] * 5)
    out = run("top", "--once", key="client").out
    assert "5 runnable" in out and "own" in out and "mail" not in out and "p99" not in out
    with top(key="client") as shown:
        frame = shown.until(has("own"))
        assert has("5 runnable")(frame) and not has("mail")(frame)
        shown.type("q")
        assert shown.ended() == 0


def test_once_prints_one_screen_without_colours_in_a_pipe(run: Run) -> None:
    done = run("top", "--once", FORCE_COLOR="1", COLUMNS="100")
    assert done.code == 0 and "\x1b" not in done.out
    assert "mail" in done.out and "n" * 15 in done.out and "the provider is down" in done.out
    assert max(map(len, done.lines)) <= 100 and done.lines == [line.rstrip() for line in done.lines]


def test_without_a_terminal_it_says_so(run: Run) -> None:
    done = run("top")
    assert done.code == 2 and "--once" in done.err


@pytest.mark.parametrize("arguments", [(), ("--once",)])
def test_a_wrong_key_ends_it(arguments: tuple[str, ...], top: Callable[..., Screen], run: Run) -> None:
    if arguments:
        assert run("top", *arguments, key="client_" + "0" * 40).code == 1
        return
    with top(FASTQ_KEY="client_" + "0" * 40) as shown:
        assert shown.ended() == 1


def test_once_without_a_server_ends_with_3(run: Run) -> None:
    assert run("top", "--once", FASTQ_URL=f"http://127.0.0.1:{free_port()}").code == 3


# --- screens of made figures ------------------------------------------------------------------------------------------


def made(
    runnable: int = 0, names: tuple[str, ...] = (), code: str = "no_worker", oldest_s: float = 180.0, rate: float = 12.3
) -> Seen:
    periods = {"1s": 1e6, "10s": rate, "60s": 0.01}
    spans = Quantiles(0.8, 12_000.0, 3.6e6)
    queues = [QueueStats(name, runnable, 10**7, 3, 10**9, oldest_s, 1e6, 0.5, 99.9) for name in names]
    stats = Stats(
        runnable=runnable, running=2, scheduled=3, dead=4, states={"READY": runnable}, queues=queues,
        queue_count=len(names), at=datetime(2026, 11, 28, tzinfo=UTC), uptime_s=1e6, version="1.0.0",
        oldest_ready_s=oldest_s, rates=dict.fromkeys(("submitted", "leased", "acked", "failed", "dead"), periods),
        latency_ms=Latencies(spans, spans, spans), wal=LogStats(2**40, 1e4, 1.5, spans), memory=MemoryStats(2**33),
    )  # fmt: skip
    why = QueueWhy(code, "no worker has asked for 2 min")
    empty = QueueSettings()
    found = {
        name: Queue(name=name, settings=empty, ready=1, waiting=0, running=0, finished={}, why=why) for name in names
    }
    return Seen(stats, True, found)


def every_size() -> Iterator[tuple[int, int]]:
    return ((columns, lines) for columns in (1, 2, 7, 30, 79, 80, 81, 132, 400) for lines in (1, 2, 5, 13, 24, 60))


HOSTILE = ("日本" * 16, "\x1b[2Jred\u202e\n", "n" * 64)


@pytest.mark.parametrize("trouble", ["", "http://x: \x1b[31m refused " + "long " * 60])
def test_no_size_and_no_text_breaks_the_screen(trouble: str) -> None:
    for columns, lines in every_size():
        shown = screen(View("http://q:1", made(10**6, HOSTILE), trouble, "q quit"), columns, lines)
        assert len(shown) == lines
        for line in shown:
            assert columns_of(line.plain) <= columns and line.plain.isprintable()


def test_the_headline_is_the_worst_queue_in_words() -> None:
    text, style = headline(View("", made(4112, ("mail", "video"))))
    assert text == ("mail: 4,112 wait, the oldest for 3 min: no worker has asked for 2 min. 1 more queue is stuck.")
    assert "yellow" in style
    assert headline(View("", made(1, ("mail",), oldest_s=5.0)))[0].startswith("Work is moving: 12.3 in and 12.3 done")
    assert headline(View("", made(1, ("mail",), "moving")))[0].startswith("Work is moving")
    idle = made(44, ("mail",), oldest_s=12.0, rate=0.0)
    assert headline(View("", idle))[0] == "44 wait, the oldest for 12 s: none was leased in the last 10 s."
    assert headline(View("", made(0, ("mail",))))[0] == "No job waits. 2 run."
    assert "disk is full" in headline(View("", Seen(made().stats, False)))[0]


def test_why_a_queue_waits_is_kept_when_columns_are_cut() -> None:
    (row,) = [line.plain for line in screen(View("", made(5, ("mail",))), 80) if line.plain.startswith("mail ")]
    assert "no worker has asked" in row
    assert isinstance(screen(View(""), 80)[0], Text)
