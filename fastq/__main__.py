"""`python -m fastq`, and the command `fastq`."""

from __future__ import annotations

from fastq.cli import main

if __name__ == "__main__":
    main()
