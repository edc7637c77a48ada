"""A job's history is read record by record, while the cleaner may move it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from fastq.engine.commands import Ack, Lease, Submit
from tests.engines import CLIENT, WORKER, running


async def test_a_history_that_is_moved_between_two_reads_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as r:
        job_id, _ = await r.ask.submit(CLIENT, Submit(b"1", max_retries=5))
        for _ in range(2):
            (leased,) = await r.ask.lease(WORKER, Lease(had_body=True))
            await r.ask.ack(WORKER, Ack(leased.job_id, leased.token, error="boom", retry_after_ms=0))
        read, failures = r.engine.commits.records, [FileNotFoundError("segment-00000001")]

        async def records(places: Sequence[Any]) -> list[bytes]:
            if len(places) == 1 and failures:  # the second link of the chain
                raise failures.pop()
            return await read(places)

        monkeypatch.setattr(r.engine.commits, "records", records)
        history = await r.ask.history(CLIENT, job_id)
        assert not failures
        assert [(event.what, event.number, event.error) for event in history.events] == [
            ("attempt", 2, "boom"), ("attempt", 1, "boom")
        ]  # fmt: skip
