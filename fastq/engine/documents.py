"""Documents, stored by kind and name; and groups: several changes in one record, all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING

from fastq import _core
from fastq._core import Access
from fastq.engine.commands import Submit
from fastq.engine.commits import ROOM_BYTES_SMALL, Commits
from fastq.engine.submits import Submits

if TYPE_CHECKING:
    from fastq._core import Submitted


class DocumentKind(IntEnum):
    """What a document in the log is; the numbers are there for ever."""

    API_KEY = 1
    QUEUE = 2
    SCHEDULE = 3
    SCHEDULE_STATE = 4
    AUDIT = 5
    REVOKED_KEY = 8
    KEY_STORE = 9
    UNSEEN_KEYS = 10


class Group:
    """Changes that go into one record. `now_us` is their time."""

    __slots__ = ("_core", "_submits", "now_us")

    def __init__(self, core: _core.Core, submits: Submits, now_us: int) -> None:
        self._core, self._submits, self.now_us = core, submits, now_us

    def put_document(self, kind: int, name: str, body: bytes, key_id: str = "") -> None:
        self._core.put_document(self.now_us, kind, name, body, key_id)

    def drop_document(self, kind: int, name: str, key_id: str = "") -> None:
        self._core.drop_document(self.now_us, kind, name, key_id)

    def submit(self, command: Submit, owner_id: str, key_id: str) -> Submitted:
        """Store a job. Raises what `Core.submit` raises."""
        return self._submits.store(self.now_us, command, owner_id, key_id)

    def cancel(self, access: Access, job_id: str, key_id: str) -> str:
        """Cancel a job; returns its new state. Raises JobNotFound, JobFinished."""
        return self._core.cancel(self.now_us, access, job_id, force=False, key_id=key_id)

    def redrive(self, access: Access, job_id: str, key_id: str) -> None:
        """Redrive a DEAD job. Raises JobNotFound, NotDead, JobDuplicate."""
        self._core.redrive(self.now_us, access, job_id, key_id=key_id)

    def delete(self, access: Access, job_ids: list[str]) -> None:
        """Delete jobs. Raises JobNotFound, JobRunning."""
        self._core.delete(self.now_us, access, job_ids)


class Documents:
    def __init__(self, core: _core.Core, commits: Commits, submits: Submits, now_us: Callable[[], int]) -> None:
        self._core, self._commits, self._submits, self._now_us = core, commits, submits, now_us

    def all_of(self, kind: int) -> dict[str, bytes]:
        """The bodies of all documents of `kind`, by name."""
        return self._core.documents(kind)

    def put(self, kind: int, name: str, body: bytes, key_id: str = "") -> None:
        """Store `body` under (kind, name), replacing an earlier one. Raises DiskFull, Overloaded."""
        self._commits.need_room(len(body) + ROOM_BYTES_SMALL, spare_segments=0)
        with self._commits.change:
            self._core.put_document(self._now_us(), kind, name, body, key_id)

    @contextmanager
    def group(self, record_bytes: int, spare_segments: int = 0) -> Iterator[Group]:
        """Log all changes made through the group as one record.

        Check before entering: records appended before an exception stay.

        Args:
            record_bytes, spare_segments: see `Commits.need_room`.
        Raises:
            DiskFull, Overloaded.
        """
        self._commits.need_room(record_bytes + ROOM_BYTES_SMALL, spare_segments)
        with self._commits.change:
            self._core.begin_group(record_bytes + ROOM_BYTES_SMALL)
            try:
                yield Group(self._core, self._submits, self._now_us())
            finally:
                self._core.end_group()
