"""AsyncClient in other event loops."""

from __future__ import annotations

import uvloop

from fastq import AsyncClient
from tests.client.served import Place


def test_under_uvloop(place: Place, queue: str) -> None:
    async def there_and_back() -> str:
        async with AsyncClient(place.url, place.keys["admin"]) as client:
            job_id = (await client.submit("x", queue=queue)).job_id
            (job,) = await client.lease([queue], limit=1)
            await client.ack(job, "done")
            return str((await client.get(job_id)).result)

    assert uvloop.run(there_and_back()) == "done"
