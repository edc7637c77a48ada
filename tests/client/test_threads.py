from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator

import pytest

from fastq.client.threads import DaemonThreads


def blocked() -> set[signal.Signals | int]:
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def block() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})


@pytest.fixture
def threads() -> Iterator[DaemonThreads]:
    made = DaemonThreads(1, "test")
    yield made
    made.shutdown()


def test_a_call_finds_the_signals_that_an_earlier_one_blocked_open(threads: DaemonThreads) -> None:
    before = threads.submit(blocked).result(10)
    threads.submit(block).result(10)
    assert threads.submit(blocked).result(10) == before


def test_a_thread_has_no_signals_blocked_that_the_loops_thread_blocked_later(threads: DaemonThreads) -> None:
    before = blocked()
    block()
    try:
        assert threads.submit(blocked).result(10) == before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_call_that_an_exception_from_outside_ends_leaves_no_signals_blocked(threads: DaemonThreads) -> None:
    before = threads.submit(blocked).result(10)

    def block_and_end() -> None:
        block()
        thread = threading.get_ident()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))
        while True:
            pass

    with pytest.raises(KeyboardInterrupt):
        threads.submit(block_and_end).result(10)
    assert threads.submit(blocked).result(10) == before
