"""The Django application, which provides the management command."""

from __future__ import annotations

from django.apps import AppConfig


class FastqConfig(AppConfig):
    name = "fastq.integrations.django"
    label = "fastq"
    verbose_name = "fastq"
