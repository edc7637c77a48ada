"""Revocations that the log knows, so that a Redis that forgot them revives no key."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress

import msgspec

from fastq.engine.documents import DocumentKind
from fastq.errors import ApiError
from fastq.services.keys.records import Documents

KEPT_US = 400 * 86_400_000_000  # how long the log knows a revocation: no copy of Redis is older
REVOKED_MAX = 100_000  # above it the oldest go


class Revoked(msgspec.Struct, frozen=True):
    """A revocation's document, under the key_id."""

    revoked_us: int


class Revocations:
    """The revoked keys by key_id, each with its time. They are bounded by age and number."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        found = {
            key_id: msgspec.json.decode(body, type=Revoked).revoked_us
            for key_id, body in documents.documents(DocumentKind.REVOKED_KEY).items()
        }
        self._revoked_us = OrderedDict(sorted(found.items(), key=lambda named: named[1]))  # the earliest first

    def __len__(self) -> int:
        return len(self._revoked_us)

    def at_us(self, key_id: str) -> int | None:
        """When the key was revoked; None: the log does not know that."""
        return self._revoked_us.get(key_id)

    def add(self, key_id: str, by_key_id: str) -> int:
        """Revoke a key. Return its time. Raises ApiError; then nothing was written."""
        revoked_us = self._documents.now_us()
        body = msgspec.json.encode(Revoked(revoked_us))
        self._documents.put_document(DocumentKind.REVOKED_KEY, key_id, body, by_key_id)
        self._revoked_us[key_id] = revoked_us
        with suppress(ApiError):  # no room now: they go with a later revocation
            self._forget_some(revoked_us)
        return revoked_us

    def _forget_some(self, now_us: int) -> None:
        """Forget up to two revocations that are too old or too many."""
        for _ in range(2):
            key_id, revoked_us = next(iter(self._revoked_us.items()))
            if revoked_us + KEPT_US > now_us and len(self._revoked_us) <= REVOKED_MAX:
                return
            self._documents.drop_documents(DocumentKind.REVOKED_KEY, [key_id])
            del self._revoked_us[key_id]
