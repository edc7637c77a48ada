"""What the pages show and change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastq.engine import Engine
from fastq.services.audit import Audit
from fastq.services.bulk import Bulk
from fastq.services.keys import KeyStore
from fastq.services.operations import Operations
from fastq.services.queues import Queues
from fastq.services.schedules import Schedules
from fastq.services.statistics import Statistics
from fastq.services.trends import Trends


@dataclass(frozen=True, slots=True)
class Start:
    """What the server knows about its start.

    Args:
        settings: of each its name, its value as text, whether that is the default, and its meaning. None is secret.
        notes: the findings of the recovery, a line each.
    """

    settings: Sequence[tuple[str, str, bool, str]] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Parts:
    engine: Engine
    queues: Queues
    schedules: Schedules
    keys: KeyStore
    audit: Audit
    bulk: Bulk
    operations: Operations
    statistics: Statistics
    start: Start
    trends: Trends
