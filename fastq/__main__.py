"""`python -m fastq`, and the command `fastq`."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command of the arguments. Ctrl-C before it runs ends the process as quietly as one after that."""
    try:
        from fastq.cli import main as run  # noqa: PLC0415 -- the import is what may be interrupted
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    else:
        run()


if __name__ == "__main__":
    main()
