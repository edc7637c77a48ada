"""Creates the first API keys at a first start."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

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
ADMIN_KEY_NAME = "admin.key"  # in the data directory
_ADMIN_SECRET = re.compile(r"admin_[A-Za-z0-9_-]{32,200}")


@dataclass(frozen=True)
class FirstKeys:
    """The lines to print about the first keys. Empty at a later start."""

    lines: tuple[str, ...] = ()
    client_secret: str | None = None


async def make_first_keys(settings: Settings, keys: KeyStore, jobs: int, now_us: int) -> FirstKeys:
    """Create keys if there never was a key and there are no jobs.

    Args:
        jobs: number of jobs in the log.
    Raises:
        BadSetting: ADMIN_KEY_FILE contains no key.
    """
    if not keys.is_unused or jobs:
        return FirstKeys()
    if settings.seed_dev_keys:
        if settings.admin_key_file is not None:
            logger.warning("ADMIN_KEY_FILE is ignored: it needs SEED_DEV_KEYS=false")
        return await _development_keys(keys, now_us)
    path = settings.admin_key_file
    lines: tuple[str, ...] = ()
    if path is None:
        path = settings.directory.absolute() / ADMIN_KEY_NAME
        if not path.exists():  # it exists if an earlier start died before it stored the key
            _make_key_file(path, new_secret("admin"))
        lines = (f"The first admin key is in {path}: keep it, then remove the file",)
    await keys.adopt(_read_key_file(path), "First Admin", "admin", "admin", now_us)
    return FirstKeys(lines)


async def _development_keys(keys: KeyStore, now_us: int) -> FirstKeys:
    """Create all three in one iteration of the loop: they share a log frame, so a crash leaves three or none."""
    made = await asyncio.gather(
        *(keys.create(name, owner_id, key_type, now_us) for key_type, name, owner_id in DEVELOPMENT_KEYS)
    )
    lines = [f"Created {record.type} key: {secret} (owner: {record.owner_id})" for secret, record in made]
    lines.append(
        "Warning: these are development keys, and they are not shown again. For production start with an empty "
        "directory and SEED_DEV_KEYS=false."
    )
    return FirstKeys(tuple(lines), made[0][0])


def _make_key_file(path: Path, secret: str) -> None:
    """Write the key file, readable by the server's user only. It is durable before the key is stored."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)
        file.write(secret + "\n")
        file.flush()
        os.fsync(descriptor)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


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
