"""Where key commands find keys: a running server, or the data directory of a stopped one."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import click

from fastq.cli.log import viewed
from fastq.cli.notices import notice
from fastq.cli.remote import client_of
from fastq.client import operator_calls
from fastq.client.models import Page
from fastq.client.protocol import Call
from fastq.engine import Engine
from fastq.engine.commands import Principal
from fastq.errors import ApiError, KeyStoreUnavailable
from fastq.http.resources import keys as key_resource
from fastq.server.settings import load_settings
from fastq.services.keys import KeyStore

OPERATOR = Principal("system:offline", "system", "admin", frozenset())

Key = dict[str, Any]
"""A key as the API shows it."""


class Keys(Protocol):
    """The operations on keys. Each raises click.ClickException; those of `Offline` also raise StartError."""

    def create(self, body: Key) -> Key: ...
    def list_all(self) -> list[Key]: ...
    def revoke(self, name: str) -> Key: ...
    def rotate(self, name: str, body: Key, shown: Callable[[Key], None]) -> None:
        """Rotate a key and pass it to `shown`, which prints it."""


class Remote:
    """The keys of a running server."""

    def __init__(self, url: str, key_file: Path | None) -> None:
        self._url, self._key_file = url, key_file

    def create(self, body: Key) -> Key:
        limits = {name: value for name, value in body.items() if name not in ("name", "owner_id", "type")}
        answer: Key = self._ask(operator_calls.create_key(body["name"], body["owner_id"], body["type"], limits))
        return answer

    def list_all(self) -> list[Key]:
        found: list[Key] = []
        cursor = ""
        with client_of(self._url, self._key_file) as client:
            while True:
                call: Call[Page[Any]] = operator_calls.list_keys(cursor)
                page = client.call(replace(call, read=lambda body: Page(json.loads(body))))
                found += page.items
                if not (cursor := page.cursor):
                    return found

    def revoke(self, name: str) -> Key:
        answer: Key = self._ask(operator_calls.revoke_key(name))
        return answer

    def rotate(self, name: str, body: Key, shown: Callable[[Key], None]) -> None:
        shown(self._ask(operator_calls.rotate_key(name, body["overlap_ms"])))

    def _ask(self, call: Call[Any]) -> Any:
        with client_of(self._url, self._key_file) as client:
            return client.call(replace(call, read=json.loads))


class Offline:
    """The keys of a stopped server. A change opens the log under the server's lock; a list only reads."""

    def __init__(self, directory: Path, claim_store: bool = False) -> None:
        """
        Args:
            claim_store: accept the Redis at REDIS_URL although the log names another one.
        """
        self._settings = load_settings(os.environ | {"FASTQ_WAL_DIR": str(directory)})
        self._claim_store = claim_store

    def create(self, body: Key) -> Key:
        unused: dict[str, None] = {}  # perhaps nobody has seen them

        async def work(engine: Engine, keys: KeyStore) -> bytes:
            now_us = engine.now_us()
            fields, grants = key_resource.create_key_fields(json.dumps(body).encode(), now_us)
            alike = (fields.name, fields.owner_id, fields.type)
            for record in await keys.list(None):
                is_unused = record.revoked_us is None and record.last_used_us <= record.created_us
                if is_unused and (record.name, record.owner_id, record.type) == alike:
                    unused[record.key_id] = None
            made = await keys.create(fields.name, fields.owner_id, fields.type, now_us, OPERATOR.key_id, grants=grants)
            return key_resource.key_with_secret(*made)

        answer: Key = self._do(work)
        for key_id in unused:
            told = f"{key_id} has the same name, owner and type, and was never used"
            notice(f"{told}. Revoke it if nobody has its secret: fastq keys revoke {key_id} --offline …")
        return answer

    def list_all(self) -> list[Key]:
        async def work(keys: KeyStore) -> bytes:
            return key_resource.keys_listed(await keys.list(None))

        from fastq.server.offline import read_keys  # noqa: PLC0415

        with exits_as_click(), viewed(self._settings.directory):
            answer: list[Key] = json.loads(read_keys(self._settings, work))
        return answer

    def revoke(self, name: str) -> Key:
        async def work(_engine: Engine, keys: KeyStore) -> bytes:
            return key_resource.key_revoked(await keys.revoke(name, OPERATOR))

        answer: Key = self._do(work)
        return answer

    def rotate(self, name: str, body: Key, shown: Callable[[Key], None]) -> None:
        """Rotate a key. A kill before it is printed leaves a secret that nobody has; a second rotation replaces it."""

        async def work(_engine: Engine, keys: KeyStore) -> bytes:
            overlap_ms = key_resource.rotate_key_fields(json.dumps(body).encode()).overlap_ms
            return key_resource.key_with_secret(*await keys.rotate(name, OPERATOR, overlap_ms, is_seen=False))

        async def show(rotated: bytes, keys: KeyStore) -> None:
            key: Key = json.loads(rotated)
            shown(key)
            sys.stdout.flush()
            await keys.note_seen(key["key_id"], OPERATOR)

        self._do(work, show)

    def _do(
        self,
        work: Callable[[Engine, KeyStore], Awaitable[bytes]],
        when_durable: Callable[[bytes, KeyStore], Awaitable[None]] | None = None,
    ) -> Any:
        # Imported late: a bad setting is reported before the extensions load.
        from fastq.server.offline import change_keys  # noqa: PLC0415

        with exits_as_click():
            return json.loads(change_keys(self._settings, work, self._claim_store, when_durable))


@contextmanager
def exits_as_click() -> Iterator[None]:
    """Raise click.ClickException in place of ApiError."""
    try:
        yield
    except KeyStoreUnavailable as error:
        raise click.ClickException(f"REDIS_URL: {error.detail}") from None
    except ApiError as error:
        raise click.ClickException(str(error)) from None
