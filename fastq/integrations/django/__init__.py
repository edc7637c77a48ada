"""A backend of Django's tasks: `"BACKEND": "fastq.integrations.django.FastqBackend"`.

Of Django 6 and later that is `django.tasks`, of those before it the backport, django-tasks. With
`fastq.integrations.django` among INSTALLED_APPS, `manage.py fastq_worker` runs the tasks.
"""

from __future__ import annotations

from fastq.integrations.django.backend import FastqBackend
from fastq.integrations.django.worker import worker_of

__all__ = ["FastqBackend", "worker_of"]
