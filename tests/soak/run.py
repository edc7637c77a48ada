"""A soak: one kind of traffic on a real server, with kills; then the log is within its bound and the server at rest."""

from __future__ import annotations

import contextlib
import http.client
import random
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from fastq.log.files.ready import READY_SEGMENTS
from fastq.log.files.recovery import read_log
from fastq.server.run import SLACK_SEGMENTS_MIN
from tests.core.disk import Disk, Frame
from tests.served import Served
from tests.soak.kinds import Caller, Kind

MIB = 1 << 20
SHORT = {
    "RETENTION_ACKED": "100ms", "LEASE_CHECK_INTERVAL": "100ms", "LEASE_DURATION": "1h", "IDEMPOTENCY_WINDOW": "1m",
}  # fmt: skip
SHAPES: dict[str, dict[str, str]] = {
    "tiny": {"WAL_SEGMENT_BYTES": "4MiB", "WAL_SLACK_BYTES": "1MiB", "PAYLOAD_CACHE_BYTES": "64KiB"},
    "blocks": {"WAL_SEGMENT_BYTES": "4MiB", "WAL_SLACK_BYTES": "16MiB", "WAL_ALIGN": "65536"},
    "defaults": {},
}
REST_S = 60.0  # an idle server comes to rest within this
QUIET_S = 1.5  # at rest it writes nothing for so long
MEMORY_BYTES = 48 * MIB  # what a life may add to the resident memory after its first third


@dataclass
class Figures:
    live_bytes: int = 0
    disk_bytes: int = 0
    rss_bytes: int = 0
    written_bytes: int = 0


@dataclass
class Soak:
    """`faults` is empty if all promises were kept."""

    kind: Kind
    shape: str
    life_bytes: int  # what the server writes in each of its lives
    lives: int
    directory: Path
    seed: int = 1
    faults: list[str] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)

    def __post_init__(self) -> None:
        chosen = SHAPES[self.shape]
        self.segment_bytes = 64 * MIB if "WAL_SEGMENT_BYTES" not in chosen else 4 * MIB
        slack = chosen.get("WAL_SLACK_BYTES", "256MiB")
        self.slack_bytes = max(int(slack.removesuffix("MiB")) * MIB, SLACK_SEGMENTS_MIN * self.segment_bytes)
        self.server = Served(self.directory / "data", **SHORT, **chosen)

    def whole(self) -> Soak:
        rng = random.Random(self.seed)
        with self.server as server:
            keys = dict(server.keys)
            for life in range(self.lives):
                caller = Caller(server, keys)
                try:
                    self._live(caller, life, rng)
                finally:
                    caller.close()
                if self.faults:
                    break
                server.start()
        return self

    def _live(self, caller: Caller, life: int, rng: random.Random) -> None:
        """Traffic, then rest. The last life ends at rest, the others in the midst of more traffic."""
        third_rss, begun_bytes = 0, self._writes()[0]
        while (written_bytes := self._writes()[0] - begun_bytes) < self.life_bytes:
            self.kind(caller)
            caller.n += 1
            if not third_rss and written_bytes > self.life_bytes // 3:
                third_rss = self._rss()
        self._need(self._comes_to_rest(), f"life {life}: it does not come to rest")
        grown = self._rss() - third_rss
        self._need(grown <= MEMORY_BYTES, f"life {life}: {grown / MIB:.0f} MiB more memory")
        self.figures.rss_bytes, self.figures.disk_bytes = self._rss(), self._disk()
        self.figures.written_bytes += written_bytes
        if life < self.lives - 1:
            self._kill_during(caller, rng.uniform(0.0, 0.3))
            self.server.start()
            self._need(self._comes_to_rest(), f"life {life}: it does not come to rest after a restart")
        self.figures.disk_bytes = self._disk()
        self.server.kill()
        self.figures.live_bytes = live_bytes(self.directory)
        bound = 2 * self.figures.live_bytes + self.slack_bytes + READY_SEGMENTS * self.segment_bytes
        self._need(
            self.figures.disk_bytes <= bound,
            f"life {life}: {self.figures.disk_bytes / MIB:.1f} MiB with {self.figures.live_bytes / MIB:.1f} MiB live",
        )

    def _kill_during(self, caller: Caller, after_s: float) -> None:
        killer = threading.Timer(after_s, self.server.kill)
        killer.start()
        try:
            while True:
                self.kind(caller)
                caller.n += 1
        except (OSError, http.client.HTTPException):
            killer.join()

    def _need(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(f"{self.kind.__name__}, {self.shape}: {fault}")

    # --- what the process does ----------------------------------------------------------------------------------------

    def _comes_to_rest(self) -> bool:
        """Wait until the server writes nothing for a while."""
        until_s = time.monotonic() + REST_S
        before, since_s = self._writes(), time.monotonic()
        while time.monotonic() - since_s < QUIET_S:
            if time.monotonic() > until_s:
                return False
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.server.process.wait(0.1)
                return False
            if (now := self._writes()) != before:
                before, since_s = now, time.monotonic()
        return True

    def _writes(self) -> tuple[int, int]:
        """Bytes written, and the bytes of the log."""
        text = Path(f"/proc/{self.server.process.pid}/io").read_text()
        written = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("write_bytes"))
        return written, self._disk()

    def _disk(self) -> int:
        total = 0
        for path in (self.directory / "data").glob("s*-*"):
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                continue
        return total

    def _rss(self) -> int:
        pages = Path(f"/proc/{self.server.process.pid}/statm").read_text().split()[1]
        return int(pages) * 4096


def live_bytes(directory: Path) -> int:
    """What a rewrite of everything live in the log takes. The server must have ended."""
    disk = Disk()
    copy = directory / "copy"
    shutil.copytree(directory / "data", copy)

    def keep(records: memoryview, frame: int) -> int:
        disk.frames.append(Frame(frame, 1, bytes(records)))
        return count_of(records)

    try:
        found = read_log(copy, keep, lambda _database_id: None)
        for seq, frame in enumerate(found.pending, found.next_seq - len(found.pending)):
            disk.frames.append(Frame(seq, 1, bytes(frame.records)))
    finally:
        shutil.rmtree(copy)
    disk.seq = disk.frames[-1].seq
    return disk.rewritten_bytes(time.time_ns() // 1000)


def count_of(records: memoryview) -> int:
    """How many records these are: each has its length at byte 4."""
    count = at = 0
    while at < len(records):
        at += int.from_bytes(records[at + 4 : at + 8], "little")
        count += 1
    return count
