"""The memory of this process."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path


def memory_bytes() -> int:
    """The memory of this process that is in RAM."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux: the highest so far
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
