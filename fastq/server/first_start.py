"""Creates the first API keys at a first start."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from fastq.drafts import sync_directory
from fastq.engine import Engine
from fastq.engine.commands import Principal
from fastq.engine.documents import DocumentKind
from fastq.errors import BadSetting
from fastq.server.settings import Settings
from fastq.services.keys import KeyStore
from fastq.services.keys.records import new_secret

logger = logging.getLogger("fastq.first_start")

DEVELOPMENT_KEYS = (
    ("client", "Dev Client", "dev-client"),
    ("worker", "Dev Worker", "dev-worker"),
    ("admin", "Dev Admin", "dev-admin"),
)
UNSEEN = "development"  # the name of the document
SYSTEM = Principal("system:start", "system", "admin", frozenset())
ADMIN_KEY_NAME = "admin.key"  # in the data directory
_ADMIN_SECRET = re.compile(r"admin_[A-Za-z0-9_-]{32,200}")


@dataclass(frozen=True)
class FirstKeys:
    """The lines to print about the first keys. Empty at a later start.

    `are_unseen`: call `note_seen` when the lines are printed.
    """

    lines: tuple[str, ...] = ()
    client_secret: str | None = None
    are_unseen: bool = False


async def make_first_keys(settings: Settings, keys: KeyStore, engine: Engine) -> FirstKeys:
    """Create keys if there never was a key and there are no jobs.

    Development keys are printed once. From before they are made until they were printed, a document says that nobody
    has seen them. A start that finds it, since the one before was killed, revokes them and makes others.

    Raises:
        BadSetting: ADMIN_KEY_FILE contains no key.
    """
    jobs = engine.counts()["jobs"]
    unseen = bool(engine.documents(DocumentKind.UNSEEN_KEYS))
    if unseen and not jobs:  # with jobs, somebody has used them
        await _revoke_unseen(keys)
    path = settings.admin_key_file or settings.directory.absolute() / ADMIN_KEY_NAME
    is_ours = settings.admin_key_file is None
    lines = (f"The first admin key is in {path}: keep it, then remove the file",)
    if jobs or not (unseen or keys.is_unused):
        is_left = is_ours and not settings.seed_dev_keys and path.exists()
        return FirstKeys(lines if is_left else (), are_unseen=unseen)
    if settings.seed_dev_keys:
        if settings.admin_key_file is not None:
            logger.warning("ADMIN_KEY_FILE is ignored: it needs SEED_DEV_KEYS=false")
        return await _development_keys(keys, engine)
    if is_ours and not path.exists():  # it exists if an earlier start died before it stored the key
        _make_key_file(path, new_secret("admin"))
    await keys.adopt(_read_key_file(path), "First Admin", "admin", "admin", engine.now_us())
    return FirstKeys(lines if is_ours else (), are_unseen=unseen)


def note_seen(engine: Engine) -> None:
    """Log that the first keys were printed."""
    with engine.group(0) as group:
        group.drop_document(DocumentKind.UNSEEN_KEYS, UNSEEN)


async def _development_keys(keys: KeyStore, engine: Engine) -> FirstKeys:
    """Create all three in one iteration of the loop: they share a log frame, so a crash leaves three or none."""
    engine.put_document(DocumentKind.UNSEEN_KEYS, UNSEEN, b"{}")
    await engine.durable()  # before Redis has a key
    made = await asyncio.gather(
        *(keys.create(name, owner_id, key_type, engine.now_us()) for key_type, name, owner_id in DEVELOPMENT_KEYS)
    )
    lines = [f"Created {record.type} key: {secret} (owner: {record.owner_id})" for secret, record in made]
    lines.append(
        "Warning: these are development keys, and they are not shown again. For production start with an empty "
        "directory and SEED_DEV_KEYS=false."
    )
    return FirstKeys(tuple(lines), made[0][0], are_unseen=True)


async def _revoke_unseen(keys: KeyStore) -> None:
    """Revoke the development keys of an earlier start: their secrets are lost."""
    for record in await keys.list(None):
        if (record.type, record.name, record.owner_id) in DEVELOPMENT_KEYS and record.revoked_us is None:
            await keys.revoke(record.key_id, SYSTEM)


def _make_key_file(path: Path, secret: str) -> None:
    """Write the key file, readable by the server's user only. It is whole, and durable before the key is stored."""
    made = path.with_name(path.name + ".new")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)
        file.write(secret + "\n")
        file.flush()
        os.fsync(descriptor)
    os.rename(made, path)
    sync_directory(path.parent)


def _read_key_file(path: Path) -> str:
    try:
        secret = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        secret = ""
    if not _ADMIN_SECRET.fullmatch(secret):
        raise BadSetting(
            f"ADMIN_KEY_FILE: '{path}' contains no key; allowed: one line, admin_ and 32 to 200 characters of "
            "A-Z a-z 0-9 _ -"
        )
    return secret
