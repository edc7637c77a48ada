"""`fastq top`: whether work moves, on a terminal that shows it every second."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from fastq.cli.errors import Failed
from fastq.cli.param_types import DURATION
from fastq.cli.remote import client_of, plain, server_options
from fastq.cli.top_screen import Seen, View, screen
from fastq.client.errors import ClientError, Forbidden, NotFound, Unauthenticated
from fastq.client.operator_models import Queue
from fastq.client.sync_client import Client
from fastq.clock import monotonic_us

KEYS = "q quit   p pause"
KEYS_PAUSED = "q quit   p go on"
QUIT, PAUSE = "qQ\x03\x04\x1b", "pP "
WHY_MAX = 10  # queues that are asked why their jobs wait
FAILURES_MAX = 3
INTERVAL_MS_MIN = 100
ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


@click.command()
@click.option("--once", is_flag=True, help="Print one screen and end.")
@click.option("--interval", "interval_ms", type=DURATION, default="1s", show_default=True, help="Time between updates.")
@server_options
def top(url: str, key_file: Path | None, once: bool, interval_ms: int) -> None:
    """Show whether work moves: totals, rates, latencies, the worst queues with why their jobs wait, failures.

    Keys: q quits, p pauses. A client key sees its owner's jobs. Needs jobs:read.
    """
    if once:
        with client_of(url, key_file) as client:
            _print(screen(View(url, ask(client)), _console().width))
        return
    if interval_ms < INTERVAL_MS_MIN:
        raise click.UsageError(f"--interval: at least {INTERVAL_MS_MIN}ms")
    console = _console()
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or console.is_dumb_terminal:
        raise click.UsageError("it needs a terminal; --once prints one screen")
    with client_of(url, key_file, 0) as client, Asking(client, interval_ms / 1000) as asking:
        _watch(console, View(url, keys=KEYS), asking)


def _console() -> Console:
    return Console(force_terminal=sys.stdout.isatty(), highlight=False, emoji=False, markup=False)


def _print(lines: list[Text]) -> None:
    console = _console()
    for line in lines:
        line.rstrip()
        console.print(line, no_wrap=True, overflow="crop", crop=True)


# --- the server's answers ---------------------------------------------------------------------------------------------


def ask(client: Client) -> Seen:
    """The figures, why the jobs of the worst queues wait, and the last failures. Raises ClientError."""
    stats = client.stats()
    found: dict[str, Queue] = {}
    for queue in stats.queues[:WHY_MAX]:
        if queue.runnable:
            with contextlib.suppress(NotFound):  # it is gone since
                found[queue.name] = client.get_queue(queue.name)
    return Seen(stats, client.is_ready(), found, client.failures(limit=FAILURES_MAX).groups)


class Asking:
    """A thread that asks the server again and again, also one that is down, until the block ends.

    The socket `told` can be read when there is another answer. A key that may not read ends it: see `refusal`.
    """

    def __init__(self, client: Client, interval_s: float) -> None:
        self._client, self._interval_s = client, interval_s
        self._stopping, self._going = threading.Event(), threading.Event()
        self._going.set()
        self.told, self._tells = socket.socketpair()
        self.seen: Seen | None = None
        self.trouble = ""
        self.refusal: ClientError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """It does not wait for an answer: the thread ends with the next one, or with the process."""
        self._stopping.set()
        self._going.set()

    def pause(self, is_paused: bool) -> None:
        self._going.clear() if is_paused else self._going.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            begun_us = monotonic_us()
            self._ask()
            self._tells.send(b"\0")
            self._stopping.wait(max(0.0, self._interval_s - (monotonic_us() - begun_us) / 1e6))
            self._going.wait()

    def _ask(self) -> None:
        try:
            self.seen, self.trouble = ask(self._client), ""
        except ClientError as error:
            self.trouble = plain(str(error)).rstrip(".")
            if self.seen is None and isinstance(error, Unauthenticated | Forbidden):
                self.refusal = error


# --- the terminal -----------------------------------------------------------------------------------------------------


def _watch(console: Console, view: View, asking: Asking) -> None:
    """Show what comes, until a key or a signal ends it. Raises Failed: the key may not read."""
    with _signals() as signals, _keys_at_once(), Live(
        console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    ) as live:  # fmt: skip
        while asking.refusal is None:
            if not view.is_paused:
                view = replace(view, seen=asking.seen, trouble=asking.trouble)
            width, height = console.size
            lines = Text("\n", no_wrap=True, overflow="crop", end="").join(screen(view, width, height))
            live.update(lines, refresh=True)
            ready, _, _ = select.select([sys.stdin, signals, asking.told], [], [])
            if asking.told in ready:
                asking.told.recv(4096)
            if signals in ready and ENDING.intersection(signals.recv(4096)):
                return
            if sys.stdin in ready:
                typed = os.read(sys.stdin.fileno(), 4096).decode(errors="replace")
                if not typed or typed[0] in QUIT:
                    return
                if typed[0] in PAUSE:
                    view = replace(view, is_paused=not view.is_paused, keys=KEYS if view.is_paused else KEYS_PAUSED)
                    asking.pause(view.is_paused)
    raise Failed(plain(str(asking.refusal)))


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket that gets the numbers of signals: a terminal that was resized, Ctrl-C, a request to end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        handlers = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGWINCH, *ENDING)}
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            yield ours
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _keys_at_once() -> Iterator[None]:
    """Read keys as they are typed and show none. Ctrl-Z does nothing: a stopped program would keep the screen."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        now = termios.tcgetattr(sys.stdin)
        now[6][termios.VSUSP] = b"\0"
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, now)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
