"""A typed payload, progress, a time limit, and a handler that cleans up when it is cancelled.

`FASTQ_KEY=client_… video_processing.py submit`, `FASTQ_KEY=worker_… video_processing.py work`.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

import fastq

QUEUE = "video"


@dataclass
class Video:
    path: str
    height: int = 720
    chapters: int = 4


@dataclass
class Encoded:
    path: str
    megabytes: float


worker = fastq.Worker(concurrency=2, time_limit_s=3600)


@worker.handles(QUEUE)
async def encode(job: fastq.Job[Video]) -> Encoded:
    video = job.payload
    try:
        for chapter in range(video.chapters):
            await asyncio.sleep(0.02)  # stands for the encoder
            job.progress(100 * (chapter + 1) // video.chapters, f"chapter {chapter + 1}")
    except asyncio.CancelledError:  # cancelled, lease lost or time limit: see job.cut
        job.log.info("removing what is half done")
        raise
    return Encoded(video.path.replace(".mov", f".{video.height}p.mp4"), 12.5 * video.chapters)


def submit() -> None:
    with fastq.Client() as client:
        job = client.submit_and_wait(Video("holiday.mov"), queue=QUEUE, priority=5, tags=["holiday"], timeout_s=60)
        encoded = job.result_as(Encoded)
        print(f"{encoded.path}: {encoded.megabytes} MB")


if __name__ == "__main__":
    submit() if sys.argv[1:] == ["submit"] else worker.run()
