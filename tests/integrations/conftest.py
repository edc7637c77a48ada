"""The server and clients of the tests of the SDK."""

from __future__ import annotations

from tests.client.conftest import aclient, client, place, queue
from tests.integrations.brokers import broker_of

__all__ = ["aclient", "broker_of", "client", "place", "queue"]
