"""Enqueue tasks, as a view would, and wait for them. `FASTQ_KEY=client_… python examples/django_site/send.py`."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import django
from django.utils import timezone

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
django.setup()

import tasks  # noqa: E402 -- tasks need the settings

import fastq  # noqa: E402

jobs = fastq.Client()


def finished(result: Any) -> Any:
    """Wait for a task: the id of its result is the job id. A view would look again at the next request instead."""
    jobs.wait_for_completion(result.id, timeout_s=60)
    result.refresh()
    return result


mail = tasks.send.enqueue("ann@example.org")
print(finished(mail).return_value)
soon = timezone.now() + timedelta(seconds=0.5)
later = tasks.report.using(run_after=soon, priority=10).enqueue(month=11)
print(finished(later).return_value)
print("what went wrong before:", later.errors[0].exception_class.__name__)
jobs.close()
