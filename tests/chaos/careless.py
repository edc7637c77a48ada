"""A faulty server for the harness to detect: its cleaner drops live records."""

from __future__ import annotations

from typing import Any

from fastq.cli import main
from fastq.engine.cleaner import Cleaner
from tests.log.files.work import SeesNothing

if __name__ == "__main__":
    prepare = Cleaner.__init__

    def blind(self: Cleaner, core: Any, *more: Any) -> None:
        prepare(self, SeesNothing(core), *more)  # type: ignore[arg-type]

    Cleaner.__init__ = blind  # type: ignore[method-assign]
    main()
