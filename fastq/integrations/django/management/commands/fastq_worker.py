"""`manage.py fastq_worker` runs the tasks of a backend."""

from __future__ import annotations

import logging
import os
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from fastq.client.errors import Refused
from fastq.integrations.django.backend import FastqBackend
from fastq.integrations.django.compat import task_backends
from fastq.integrations.django.worker import worker_of

LOG_LEVELS = {0: logging.ERROR, 1: logging.WARNING, 2: logging.INFO, 3: logging.DEBUG}


class Command(BaseCommand):
    help = "Run tasks of a fastq backend until SIGINT or SIGTERM."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--backend", default="default", help="name in TASKS; default: default")
        parser.add_argument(
            "--queue",
            action="append",
            help="queue to work on; may be repeated, in strict order; default: all queues of the backend",
        )
        parser.add_argument("--concurrency", type=int, default=10, help="how many tasks run at once; default: 10")
        parser.add_argument("--time-limit", type=float, help="time limit of an attempt, seconds; default: none")
        parser.add_argument(
            "--stop", type=float, default=30.0, help="how long a stop waits for tasks, seconds; default: 30"
        )
        parser.add_argument("--burst", action="store_true", help="exit when no task is ready and none runs")

    def handle(self, *_: Any, verbosity: int, **given: Any) -> None:
        logging.getLogger("fastq").setLevel(LOG_LEVELS[verbosity])
        backend = task_backends[given["backend"]]
        if not isinstance(backend, FastqBackend):
            raise CommandError(f"TASKS[{given['backend']!r}] is not a FastqBackend")
        try:
            worker = worker_of(
                backend, queues=given["queue"], concurrency=given["concurrency"], time_limit_s=given["time_limit"],
                stop_s=given["stop"],
            )  # fmt: skip
            worker.run(burst=given["burst"])
        except (Refused, ValueError) as error:
            raise CommandError(str(error)) from error
        if worker.left_behind:  # their jobs are released; do not wait for the threads
            logging.shutdown()
            os._exit(0)
