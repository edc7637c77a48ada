"""A server whose cleaner takes nothing in an old segment for needed, for the harness to catch."""

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
