"""A backend for Django's tasks: `"BACKEND": "fastq.integrations.django.FastqBackend"`.

It works with `django.tasks` of Django 6 and later, and with the backport django-tasks before. With
`fastq.integrations.django` in INSTALLED_APPS, `manage.py fastq_worker` runs the tasks.
"""

from __future__ import annotations

from fastq.integrations.django.backend import FastqBackend
from fastq.integrations.django.worker import worker_of

__all__ = ["FastqBackend", "worker_of"]
