"""The settings of a fastq backend: the application, for its command, and the backend."""

from __future__ import annotations

import os

SECRET_KEY = "of an example"  # noqa: S105 -- nothing is signed here
INSTALLED_APPS = ["fastq.integrations.django"]
USE_TZ = True
TASKS = {
    "default": {
        "BACKEND": "fastq.integrations.django.FastqBackend",
        "QUEUES": ["mail", "reports"],
        "OPTIONS": {"URL": os.environ.get("FASTQ_URL"), "KEY": os.environ["FASTQ_KEY"]},
    }
}
