"""Open the key store of the settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastq.services.keys.log_store import LogKeyStore
from fastq.services.keys.records import Documents, KeyStore


@asynccontextmanager
async def opened_keys(redis_url: str | None, grace_ms: int, documents: Documents) -> AsyncIterator[KeyStore]:
    """Open the key store. It is closed at the end of the context.

    Args:
        redis_url: None: keys are in the log.
        grace_ms: how long cached keys work without Redis.
    Raises:
        BadSetting: Redis does not answer at a first start.
    """
    if redis_url is None:
        yield LogKeyStore(documents)
        return
    # A late import: redis and its imports take more than half of the time of a start without them.
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
