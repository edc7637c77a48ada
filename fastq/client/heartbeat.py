"""The heartbeat of a worker: a thread that extends leases, also while a handler blocks the event loop."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable, Sequence

from fastq.client.errors import ClientError
from fastq.client.logs import WorkerLog
from fastq.client.models import LeasedJob
from fastq.clock import monotonic_us

BEATS_A_LEASE = 3
BEATS_MAX = 10_000  # leases in one request
TICK_S = 0.5
BLOCKED_S = 1.0  # a handler that keeps the event loop for longer is named in a warning
END_S = 1.0

Extend = Callable[[Sequence[LeasedJob]], None]
"""Extends leases, gives the answers to the event loop, and returns. Raises ClientError."""


class Heartbeat:
    """
    Args:
        extend: called in the thread of the heartbeat.
        held: the jobs whose leases to extend. Called in any thread.
        running: names the handlers that run, and the one that has the event loop now, else "". Called in any thread.
        blocked: called in the thread, again and again while the event loop is blocked.
        alive: called in the event loop, about once a second.
    """

    def __init__(
        self, lease_ms: int, extend: Extend, held: Callable[[], list[LeasedJob]],
        running: Callable[[], tuple[str, str]], blocked: Callable[[], None], alive: Callable[[], None],
        log: WorkerLog,
    ) -> None:  # fmt: skip
        self._beat_us = lease_ms * 1000 // BEATS_A_LEASE
        self._extend, self._held, self._running = extend, held, running
        self._blocked, self._alive, self._log = blocked, alive, log
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fastq-heartbeat", daemon=True)
        self._asked_us = 0  # since when the event loop has not answered
        self._is_warned = False

    def start(self, at_once: bool) -> None:
        """at_once: send the first heartbeat now, so that its connection is there before a handler can bar it."""
        self._is_due = at_once
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join(END_S)  # it may wait for a server that is away

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        due_us = monotonic_us() + (0 if self._is_due else self._beat_us)
        while True:
            begun_us = monotonic_us()
            wait_s = max(0.0, min(TICK_S, (due_us - begun_us) / 1e6))
            if self._ended.wait(wait_s):
                return
            now_us = monotonic_us()
            self._look(now_us, now_us - begun_us - int(wait_s * 1e6))
            if now_us >= due_us:
                due_us = now_us + self._beat_us
                self._beat()

    def _beat(self) -> None:
        held = self._held()
        try:
            for first in range(0, max(1, len(held)), BEATS_MAX):
                self._extend(held[first : first + BEATS_MAX])
        except ClientError as error:
            if held and not self._ended.is_set():
                self._log.warning("the leases of %d jobs were not extended, retrying: %s", len(held), error)
        except RuntimeError:  # the event loop is closed
            self._ended.set()
        except Exception:  # noqa: BLE001 -- the leases of all jobs depend on this thread
            self._log.exception("bug in the worker: the leases were not extended")

    def _look(self, now_us: int, late_us: int) -> None:
        """Warn of a handler that blocks the event loop, or the interpreter."""
        if late_us > BLOCKED_S * 1e6:
            running, _ = self._running()
            self._log.warning(
                "nothing else could run for %.1f s: a handler held the interpreter, or the machine stood still. "
                "Running: %s. Use in_process=True for such a handler", late_us / 1e6, running,
            )  # fmt: skip
        if not self._asked_us:
            self._asked_us = now_us
            try:
                self._loop.call_soon_threadsafe(self._answer)
            except RuntimeError:  # it is closed
                self._ended.set()
            return
        blocked_us = now_us - self._asked_us
        if blocked_us < BLOCKED_S * 1e6:
            return
        self._blocked()
        if not self._is_warned:
            self._is_warned = True
            self._log.warning(
                "%s has blocked the event loop for %.1f s, and no other async handler can run. "
                "Make it a plain function, or await. It is at%s", self._running()[1] or "something",
                blocked_us / 1e6, self._place(),
            )  # fmt: skip

    def _place(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        return "" if frame is None else "\n" + "".join(traceback.format_stack(frame)[-3:]).rstrip()

    # --- in the event loop --------------------------------------------------------------------------------------------

    def _answer(self) -> None:
        if self._is_warned:
            self._log.warning("the event loop is free again after %.1f s", (monotonic_us() - self._asked_us) / 1e6)
        self._asked_us, self._is_warned = 0, False
        self._alive()
