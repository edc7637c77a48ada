"""The program of a child process: it runs one handler at a time for the worker that started it.

It imports the main script of the worker only if a handler, or a payload, is defined there, and only up to the call of
`Worker.run`: so a script needs no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import builtins
import contextlib
import fcntl
import importlib.util
import io
import logging
import logging.handlers
import multiprocessing
import os
import pickle
import queue
import resource
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from fastq.client import forks
from fastq.client.errors import ReachedRun
from fastq.client.job import Job
from fastq.client.loops import LIMITS
from fastq.client.outcome_models import Failure
from fastq.client.outcomes import Raised, code_of, ended, text_of

TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)

PIPE_LOST = 74  # the exit code if a handler closed the pipe
INTERRUPTED = 75  # and if an exception was thrown into the process while it ran no handler

_importing: list[str] = []


@contextlib.contextmanager
def importing(what: str) -> Iterator[None]:
    """`Worker.run` does nothing while a program imports a module of handlers, so the module needs no main guard.

    what: "main" for the main script of a worker; anything else for another module.
    """
    _importing.append(what)
    try:
        yield
    finally:
        _importing.pop()


def is_importing() -> bool:
    """Whether `Worker.run` was called by an import. Raises ReachedRun: by that of the main script, which ends there."""
    if _importing and _importing[-1] == "main":
        raise ReachedRun
    return bool(_importing) or bool(getattr(multiprocessing.current_process(), "_inheriting", False))


@dataclass
class Preparation:
    """What a child needs to know of its worker.

    main_name, main_path: of the main script; one of them, or neither in an interactive session. levels: of loggers by
    name; "" is the root. is_done: whether the child has imported the main script.
    """

    argv: list[str]
    main_name: str | None
    main_path: str | None
    levels: dict[str, int] = field(default_factory=dict)
    is_done: bool = False


def main(pipe_fd: int, life_fd: int) -> None:
    """Serve handlers until the pipe is closed. The process group dies with the writer of `life_fd`."""
    _die_with_parent(life_fd)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    # Only the worker decides when it ends: a service manager or a terminal signals all processes at once.
    forks.take_signals(dict.fromkeys((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), forks.quiet))
    forks.keep_all_loops()
    pipe = _Pipe(Connection(pipe_fd))
    preparation = pipe.loaded(pipe.receive_text())
    sys.argv = preparation.argv
    pipe.preparation = preparation
    _log_through(pipe, preparation.levels)
    try:
        while _serve_one(pipe):
            pass
    except EOFError:
        pass
    except OSError:
        os._exit(PIPE_LOST)
    except BaseException:  # noqa: BLE001 -- thrown by what a handler left behind
        os._exit(INTERRUPTED)


def _serve_one(pipe: _Pipe) -> bool:
    """Run one handler. Returns whether the process can run another one."""
    text = pipe.receive_text()
    try:
        function, leased, payload, logger_name = pipe.loaded(text)
    except BaseException as error:  # noqa: BLE001 -- an import or the unpickling raises anything
        pipe.tell("failed", *_failure(Raised.of(error)), False)
        return True
    pipe.tell("started")
    logger = logging.getLogger(logger_name)
    job = Job(leased, payload, logger, lambda _, percent, note: pipe.tell("progress", percent, note))
    before, names = _surroundings(), _names()
    outcome = ended(function, job)
    are_names_kept = _restore(names)
    if os.getpid() != pipe.process:  # a fork of the handler came back from it
        os._exit(0)
    _flush()
    is_spoiled = not are_names_kept or before != _surroundings()
    if type(outcome) is not Raised:
        try:
            _tell_value(pipe, job, outcome, is_spoiled)
            return not is_spoiled
        except OSError:
            raise
        except BaseException as error:  # noqa: BLE001 -- the result cannot be pickled
            outcome = Raised.of(error)
    pipe.tell("failed", *_failure(outcome), is_spoiled)
    return not is_spoiled


def _tell_value(pipe: _Pipe, job: Job[Any], value: Any, is_spoiled: bool) -> None:
    """Raises what the pickling raises. A failure keeps what can be pickled."""
    try:
        pipe.tell("done", value, is_spoiled)
    except OSError:
        raise
    except BaseException as error:
        if not isinstance(value, Failure):
            raise
        job.log.warning("the result of its failure was dropped: it cannot be pickled: %s", text_of(error))
        kept = Failure(
            error=text_of(value.error), code=None if value.code is None else code_of(value.code),
            retry_after_ms=value.retry_after_ms if type(value.retry_after_ms) is int else None,
            discard=bool(value.discard),
        )  # fmt: skip
        pipe.tell("done", kept, is_spoiled)


def _failure(raised: Raised) -> tuple[str, str, str]:
    try:
        trace = "".join(traceback.format_exception(raised.error))
    except BaseException:  # noqa: BLE001 -- the exception hides what it is
        trace = ""
    return raised.name, raised.message, trace.encode(errors="backslashreplace").decode()


def _surroundings() -> tuple[Any, ...]:
    """What a handler can change for those after it. A process that is not as it was is replaced."""
    try:
        directory = os.getcwd()
    except OSError:
        directory = ""
    handlers = tuple(signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD))
    files = tuple(file is None or file.closed for file in (sys.stdin, sys.stdout, sys.stderr))
    limits = tuple(resource.getrlimit(which) for which in LIMITS)
    mask = frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    timers = tuple(signal.getitimer(which)[0] > 0 for which in TIMERS)
    os.umask(umask := os.umask(0o077))
    return directory, handlers, files, limits, mask, timers, umask, time.tzname


def _names() -> list[tuple[Any, dict[Any, Any]]]:
    """Dictionaries that everything here depends on, and their content."""
    return [(names, dict(names)) for names in (vars(builtins), sys.modules, os.environ)]


def _restore(names: list[tuple[Any, dict[Any, Any]]]) -> bool:
    """Undo what a handler did to names that were there before. Returns whether it did nothing to them.

    It may have replaced any builtin: this uses none before all are back.
    """
    are_kept = True
    for now, before in names:
        for name in before:
            if now.get(name, now) is not before[name] and now.get(name, now) != before[name]:
                are_kept = False
                now[name] = before[name]
    return are_kept


def _flush() -> None:
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a handler closed or replaced it
            file.flush()


def _die_with_parent(life_fd: int) -> None:
    """Kill this process and those that it started when the worker is gone: their job runs again elsewhere.

    On Linux the kernel does it at once, also while the handler holds the interpreter; elsewhere a thread.
    """
    os.set_inheritable(life_fd, False)
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(life_fd, fcntl.F_SETOWN, -os.getpid())  # the process group that this process leads
        fcntl.fcntl(life_fd, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(life_fd, fcntl.F_SETFL, fcntl.fcntl(life_fd, fcntl.F_GETFL) | os.O_ASYNC)

    def wait() -> None:
        os.read(life_fd, 1)  # ends when the worker does
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, name="fastq-parent", daemon=True).start()


# --- the pipe ---------------------------------------------------------------------------------------------------------


class _Pipe:
    """The connection to the worker. Forks of the process do not use it."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        os.set_inheritable(connection.fileno(), False)
        forks.keep_private(connection)
        self._connection, self._lock = connection, threading.Lock()
        self.process = os.getpid()
        self.preparation: Preparation | None = None

    def receive_text(self) -> bytes:
        """Raises EOFError: the worker closed the pipe."""
        return self._connection.recv_bytes()

    def loaded(self, text: bytes) -> Any:
        """The message. Raises anything: it cannot be unpickled."""
        with importing("a handler"):
            return _Unpickler(io.BytesIO(text), self.preparation).load()

    def tell(self, *message: Any) -> None:
        """Raises what the pickling of the message raises, or OSError."""
        if os.getpid() == self.process:
            with self._lock:
                self._connection.send(message)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, preparation: Preparation | None) -> None:
        super().__init__(file)
        self._preparation = preparation

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name == "__main__" and self._preparation is not None and not self._preparation.is_done:
            _import_main(self._preparation)
            self._preparation.is_done = True
        return super().find_class(module_name, global_name)


def _import_main(preparation: Preparation) -> None:
    """Run the main script under the name that multiprocessing gives it, up to `Worker.run`."""
    module = types.ModuleType("__mp_main__")
    if preparation.main_name is not None:
        spec = importlib.util.find_spec(preparation.main_name)
        if spec is None or spec.loader is None:
            raise ImportError(f"no module {preparation.main_name!r}")
        module.__file__, module.__package__, module.__spec__ = spec.origin, spec.parent, spec
        code = spec.loader.get_code(preparation.main_name)  # type: ignore[attr-defined]
    elif preparation.main_path is not None:
        with io.open_code(preparation.main_path) as file:
            code = compile(file.read(), preparation.main_path, "exec")
        module.__file__ = preparation.main_path
    else:
        raise ImportError("the handler is defined in an interactive session, which a child process cannot import")
    before = sys.modules["__main__"]
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    try:
        with importing("main"):
            exec(code, module.__dict__)  # noqa: S102 -- the user's own program
    except ReachedRun:
        pass
    except BaseException:
        sys.modules["__main__"] = sys.modules["__mp_main__"] = before
        raise


# --- log lines --------------------------------------------------------------------------------------------------------


class _ToWorker(logging.handlers.QueueHandler):
    """Gives log records to the worker, whose handlers write them."""

    def __init__(self, pipe: _Pipe) -> None:
        super().__init__(queue.SimpleQueue())  # unused: `enqueue` writes to the pipe
        self._pipe = pipe

    def enqueue(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # the worker is gone
            try:
                self._pipe.tell("log", record.__dict__)
            except OSError:
                raise
            except Exception:  # noqa: BLE001 -- an `extra` that cannot be pickled
                plain = logging.LogRecord(
                    record.name, record.levelno, record.pathname, record.lineno, record.getMessage(), None, None
                )
                self._pipe.tell("log", plain.__dict__)


def _log_through(pipe: _Pipe, levels: dict[str, int]) -> None:
    logging.getLogger().addHandler(_ToWorker(pipe))
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
