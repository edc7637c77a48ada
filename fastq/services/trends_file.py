"""The file of the trends: an SQLite database. All methods block; call them from one thread."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from fastq._core import FailureGroup
from fastq.services.trends import RESOLUTIONS, Point, step_of

_log = logging.getLogger("fastq.trends")

VERSION = 1  # of the tables
LOCK_S = 1.0  # how long another process may hold the file
WHOLE = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY}
"""SQLite's errors of a file that is not damaged."""
TIME_MAX_US = 253_402_300_800_000_000  # the year 10000: what no answer can show
PAGE_BYTES, BYTES_MAX = 4_096, 256 << 20
FAILURES_KEPT = 10_000
TABLES = """
CREATE TABLE points (
    step_s INTEGER, queue TEXT, at_s INTEGER, in_per_s REAL, out_per_s REAL, failed_per_s REAL, depth REAL,
    oldest_s REAL, wait_p50_ms REAL, wait_p95_ms REAL, PRIMARY KEY (step_s, queue, at_s)
) WITHOUT ROWID;
CREATE INDEX points_by_time ON points (step_s, at_s);
CREATE TABLE failures (
    queue TEXT, owner_id TEXT, error_code TEXT, error TEXT, count INTEGER, first_us INTEGER, last_us INTEGER,
    job_id TEXT, PRIMARY KEY (owner_id, queue, error_code, error)
) WITHOUT ROWID;
CREATE INDEX failures_by_time ON failures (last_us);
CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER);
"""
_ROLL_UP = """
INSERT OR REPLACE INTO points SELECT :to_s, queue, :at_s, avg(in_per_s), avg(out_per_s), avg(failed_per_s), avg(depth),
max(oldest_s), max(wait_p50_ms), max(wait_p95_ms) FROM points WHERE step_s = :from_s AND at_s >= :at_s AND
at_s < :at_s + :to_s GROUP BY queue
"""
_POINTS = """
SELECT at_s, in_per_s, out_per_s, failed_per_s, depth, oldest_s, wait_p50_ms, wait_p95_ms FROM points
WHERE step_s = ? AND queue = ? AND at_s >= ? ORDER BY at_s
"""
_FAILURES = """
SELECT queue, owner_id, error_code, error, count, first_us, last_us, job_id FROM failures ORDER BY last_us DESC LIMIT ?
"""
_FORGET = "DELETE FROM failures WHERE last_us < (SELECT last_us FROM failures ORDER BY last_us DESC LIMIT 1 OFFSET ?)"
_FAILURE = ("queue", "owner_id", "error_code", "error", "count", "first_us", "last_us", "job_id")


class TrendsFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._since_us = 0
        self._complaint = ""

    def open(self, now_us: int) -> tuple[int, list[FailureGroup]]:
        """Open the file, or make it. Return since when failures are counted, and their groups.

        Without a file that can be written there are no trends; the log says why.
        """
        self._since_us = now_us
        try:
            return self._opened(now_us)
        except (sqlite3.DatabaseError, ValueError, TypeError, OverflowError) as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in WHOLE:
                _log.warning("there are no charts over a restart: %s: %s", self._path, error)
                self.close()
                return now_us, []
            if self._path.exists():
                _log.warning("%s is damaged and is made anew: earlier charts are lost: %s", self._path, error)
        except OSError as error:
            _log.warning("there are no charts over a restart: %s: %s", self._path, error.strerror)
            return now_us, []
        try:
            self._remove()
            return self._opened(now_us)
        except (sqlite3.Error, OSError) as error:
            _log.warning("there are no charts over a restart: %s: %s", self._path, error)
            self._db = None
            return now_us, []

    def _opened(self, now_us: int) -> tuple[int, list[FailureGroup]]:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = self._db = sqlite3.connect(self._path, LOCK_S, check_same_thread=False, isolation_level=None)
        db.execute("PRAGMA journal_mode = TRUNCATE")
        db.execute("PRAGMA synchronous = OFF")  # the disk belongs to the log
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0 and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            db.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"its version is {version}, not {VERSION}")
        elif (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)
        db.execute(f"PRAGMA max_page_count = {BYTES_MAX // PAGE_BYTES}")
        db.execute("INSERT OR IGNORE INTO facts VALUES ('failures_since_us', ?)", (now_us,))
        ((self._since_us,),) = db.execute("SELECT value FROM facts WHERE name = 'failures_since_us'").fetchall()
        rows = db.execute(_FAILURES, (FAILURES_KEPT,))
        groups = [FailureGroup(**dict(zip(_FAILURE, row, strict=True))) for row in rows]
        _check_times([self._since_us, *(at_us for group in groups for at_us in (group.first_us, group.last_us))])
        return self._since_us, groups

    def _remove(self) -> None:
        self.close()
        for suffix in ("", "-journal", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(f"{self._path}{suffix}")

    def close(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def read(self, queue: str, span_s: int, since_s: int) -> list[Sequence[Any]]:
        """The points of a queue since a time, of the finest resolution that is kept for so long; the oldest first."""
        if self._db is None:
            return []
        try:
            return self._db.execute(_POINTS, (step_of(span_s), queue, since_s)).fetchall()
        except sqlite3.Error as error:
            self._complain(error)
            return []

    def write(self, points: Iterable[tuple[str, Point]], failures: list[FailureGroup], now_s: int) -> None:
        """Add points and failures, make the coarser points of now, and drop what is too old."""
        if self._db is None:
            return
        try:
            self._write(self._db, list(points), failures, now_s)
            self._complaint = ""
        except sqlite3.OperationalError as error:  # the disk is full, for example: the next step tries again
            self._complain(error)
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
        except sqlite3.DatabaseError as error:
            _log.warning("%s is damaged and is made anew: earlier charts are lost: %s", self._path, error)
            self._make_anew()

    def _make_anew(self) -> None:
        try:
            self._remove()
            self._opened(self._since_us)
        except (sqlite3.Error, OSError) as error:
            _log.warning("there are no charts from now on: %s: %s", self._path, error)
            self.close()

    def _write(
        self, db: sqlite3.Connection, points: list[tuple[str, Point]], failures: list[FailureGroup], now_s: int
    ) -> None:
        step_s = RESOLUTIONS[0][0]
        db.execute("BEGIN IMMEDIATE")
        db.executemany(
            "INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (step_s, queue, p.at_s, p.in_per_s, p.out_per_s, p.failed_per_s, p.depth, p.oldest_s, p.wait_p50_ms,
                 p.wait_p95_ms)
                for queue, p in points
            ],
        )  # fmt: skip
        if points:
            for (from_s, _), (to_s, _) in pairwise(RESOLUTIONS):
                at_s = points[0][1].at_s
                db.execute(_ROLL_UP, {"from_s": from_s, "to_s": to_s, "at_s": at_s - at_s % to_s})
        for kept_step_s, kept_s in RESOLUTIONS:
            db.execute("DELETE FROM points WHERE step_s = ? AND at_s < ?", (kept_step_s, now_s - kept_s))
        db.executemany(
            "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [[getattr(group, name) for name in _FAILURE] for group in failures],
        )
        if failures:
            db.execute(_FORGET, (FAILURES_KEPT,))
        db.execute("COMMIT")

    def _complain(self, error: sqlite3.Error) -> None:
        """Log an error, once for as long as it lasts."""
        if str(error) != self._complaint:
            self._complaint = str(error)
            _log.warning("charts are not up to date: %s: %s", self._path, error)


def _check_times(times_us: Iterable[object]) -> None:
    """Raise ValueError for what is no time. SQLite stores any value in any column."""
    for at_us in times_us:
        if not isinstance(at_us, int) or not 0 <= at_us < TIME_MAX_US:
            raise ValueError(f"{at_us!r} is no time")
