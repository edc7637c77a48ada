"""A server whose cleaner takes nothing in an old segment for needed, for the harness to catch."""

from __future__ import annotations

from typing import Any

from fastq.cleaner import Cleaner
from fastq.cli import main
from tests.log.work import SeesNothing

if __name__ == "__main__":
    prepare = Cleaner.__init__

    def blind(self: Cleaner, core: Any, *more: Any) -> None:
        prepare(self, SeesNothing(core), *more)  # type: ignore[arg-type]

    Cleaner.__init__ = blind  # type: ignore[method-assign]
    main()
