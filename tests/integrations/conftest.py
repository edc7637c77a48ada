"""The server and the clients of the SDK's tests."""

from __future__ import annotations

from tests.client.conftest import aclient, client, place, queue

__all__ = ["aclient", "client", "place", "queue"]
