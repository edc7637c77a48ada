"""`./dev soak`: every kind of traffic on a real server, in several shapes of the log, with kill -9."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.kinds import KINDS
from tests.soak.run import MIB, SHAPES, Soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev soak", description=__doc__)
    parser.add_argument("--mib", type=int, default=1000, help="what a server writes in each life")
    parser.add_argument("--lives", type=int, default=3)
    parser.add_argument("--kinds", default="", help="names with commas between them; default: all")
    parser.add_argument("--shapes", default=",".join(SHAPES))
    asked = parser.parse_args()
    faults: list[str] = []
    for shape in asked.shapes.split(","):
        for kind in [
            kind for kind in KINDS if kind.__name__ in (asked.kinds.split(",") if asked.kinds else [kind.__name__])
        ]:
            directory, begun_s = Path(tempfile.mkdtemp(prefix="fastq-soak-")), time.monotonic()
            soak = Soak(kind, shape, asked.mib * MIB, asked.lives, directory).whole()
            figures = soak.figures
            print(
                f"{kind.__name__:15} {shape:9} {figures.written_bytes / MIB:8.0f} MiB written  "
                f"{figures.live_bytes / MIB:7.1f} live  {figures.disk_bytes / MIB:7.1f} disk  "
                f"{figures.rss_bytes / MIB:6.0f} resident  {time.monotonic() - begun_s:6.1f} s  "
                f"{'; '.join(soak.faults) or 'holds'}",
                flush=True,
            )
            faults += soak.faults
            if not soak.faults:
                shutil.rmtree(directory)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
