"""The server and clients of the tests of the SDK."""

from __future__ import annotations

from tests.client.conftest import aclient, client, place, queue

__all__ = ["aclient", "client", "place", "queue"]
