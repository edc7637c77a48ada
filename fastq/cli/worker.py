"""`fastq worker`."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from importlib import import_module

import click

from fastq.cli.notices import notice
from fastq.client.errors import Refused
from fastq.client.worker import Worker
from fastq.clock import monotonic_us

LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
EXIT_REFUSED = 1
THREADS_END_US = 1_000_000


def found(app: str) -> Worker:
    """The worker at `module:name`; the default of `name` is `worker`. Raises UsageError: there is none."""
    module_name, _, name = app.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module exists, but one of its imports does not
        raise click.UsageError(f"APP: no module {error.name!r} in {os.getcwd()} or on the path") from None
    worker = getattr(module, name or "worker", None)
    if not isinstance(worker, Worker):
        raise click.UsageError(f"APP: {module_name} has no fastq.Worker named {name or 'worker'!r}")
    return worker


@click.command(epilog="FASTQ_URL names the server; FASTQ_KEY holds the worker's key.")
@click.argument("app", metavar="MODULE:NAME")
@click.option("--concurrency", type=click.IntRange(1), help="How many jobs run at once.")
@click.option("--queue", "queues", multiple=True, help="Queue to lease from. May be repeated, in strict order.")
@click.option("--processes", type=click.IntRange(1), help="How many handlers run in processes at once.")
@click.option(
    "--time-limit", "time_limit_s", type=click.FloatRange(0, min_open=True), help="Time limit of an attempt, seconds."
)
@click.option("--stop", "stop_s", type=click.FloatRange(0), help="How long a stop waits for handlers, seconds.")
@click.option("--burst", is_flag=True, help="Exit when no job is ready and none runs.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
def worker(
    app: str, concurrency: int | None, queues: tuple[str, ...], processes: int | None, time_limit_s: float | None,
    stop_s: float | None, burst: bool, log_level: str,
) -> None:  # fmt: skip
    """Run the fastq.Worker NAME of a Python MODULE until SIGINT, SIGTERM or SIGHUP."""
    logging.basicConfig(level=log_level.upper(), format=LINE)
    one = found(app)
    one.concurrency = concurrency or one.concurrency
    one.queues = queues or one.queues
    if processes is not None:
        one.processes = processes
    one.time_limit_s = time_limit_s or one.time_limit_s
    one.stop_s = one.stop_s if stop_s is None else stop_s
    try:
        one.run(burst=burst)
    except (Refused, ValueError) as error:
        notice(f"fastq: {error}")
        sys.exit(EXIT_REFUSED)
    if one.left_behind or _is_kept():  # the jobs of handlers left behind are released
        logging.shutdown()
        with contextlib.suppress(OSError, ValueError):  # a handler closed it
            sys.stdout.flush()
        os._exit(0)


def _is_kept() -> bool:
    """Whether threads that handlers started would keep the process. They have a second to end."""
    deadline_us = monotonic_us() + THREADS_END_US
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0.0, (deadline_us - monotonic_us()) / 1e6))
            if thread.is_alive():
                logging.getLogger("fastq.worker").warning(
                    "thread %s of a handler does not end; leaving it", thread.name
                )
                return True
    return False
