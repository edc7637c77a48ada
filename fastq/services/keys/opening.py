"""The key store that the settings ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastq.services.keys.log_store import LogKeyStore
from fastq.services.keys.records import Documents, KeyStore


@asynccontextmanager
async def opened_keys(redis_url: str | None, grace_ms: int, documents: Documents) -> AsyncIterator[KeyStore]:
    """The store, for as long as it is used.

    Args:
        redis_url: None: keys are kept in the log.
        grace_ms: how long keys that were in use work without Redis.
    Raises:
        BadSetting: a first start, and Redis does not answer.
    """
    if redis_url is None:
        yield LogKeyStore(documents)
        return
    # Only here: redis and what it imports are more than half of the time that a start without it takes.
    from fastq.services.keys.redis_store import RedisKeyStore  # noqa: PLC0415

    store = RedisKeyStore(redis_url, documents, grace_ms * 1000)
    try:
        await store.open()
        watching = asyncio.create_task(store.watch_store())
        try:
            yield store
        finally:
            watching.cancel()
    finally:
        await store.close()
