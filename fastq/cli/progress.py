"""The progress of a change of many jobs: a bar on a terminal, and how to go on after Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from fastq.cli.errors import Failed
from fastq.cli.notices import is_watched, notice, progress_bar
from fastq.client.models import ChangedMany

BEGUN = ChangedMany(0, 0, False)


class Watched:
    """What was done until now."""

    def __init__(self) -> None:
        self.done = BEGUN

    def note(self, done: ChangedMany) -> None:
        self.done = done


@contextmanager
def watched(expected: int | None) -> Iterator[Callable[[ChangedMany], object]]:
    """The function that shows the progress on standard error, if that is a terminal and it takes a while.

    Args:
        expected: how many jobs matched before; None: not counted.
    Raises:
        KeyboardInterrupt: it was stopped with Ctrl-C. A notice has said how to go on.
    """
    seen = Watched()
    try:
        with ExitStack() as stack:
            bar: Any = None

            def note(done: ChangedMany) -> None:
                nonlocal bar
                if bar is None and not done.complete and is_watched():
                    bar = stack.enter_context(progress_bar("jobs", expected))
                if bar is not None:
                    bar.update(done.matched - (seen.done.matched if bar.pos else 0))
                seen.note(done)

            yield note
    except KeyboardInterrupt:
        done = seen.done
        on = f" --cursor {done.cursor}" if done.cursor else ""
        notice(f"\nstopped: {done.changed:,} jobs were changed, and maybe some more. To go on, repeat the command{on}")
        raise


def need_complete(done: ChangedMany) -> None:
    """Raises Failed if a change ended before the last job."""
    if not done.complete:
        on = f", or go on with --cursor {done.cursor}" if done.cursor else ""
        raise Failed(f"the server stopped before the last job: repeat the command{on}")
