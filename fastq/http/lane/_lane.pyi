"""The lane: plain, frequent requests go from bytes to bytes, without ASGI."""

from typing import final

from fastq._core import Core
from fastq.engine import Engine
from fastq.http.connection.protocol import Protocol
from fastq.http.request_ids import RequestIds
from fastq.services.auth import Authenticator

class Lane(Protocol):
    """The protocol class for uvicorn's setting `http`. The application's `short_way` answers plain requests."""

@final
class Answers:
    """The answers of one connection that are not sent yet, in order."""

    waiting: int
    taken: int

@final
class ShortWay:
    """Plain submits, leases and acks from the bytes of a request to the core and to the bytes of its answer.

    A server has one. All its methods run in the event loop's thread.
    """

    def __init__(self, engine: Engine, core: Core, auth: Authenticator, request_ids: RequestIds) -> None: ...
    def send_due(self) -> None:
        """Send the answers that wait for a batch that is now durable."""

    def end_turn(self) -> None:
        """End a turn of the loop. The next request looks up the server's state again."""
    @property
    def answered_count(self) -> int:
        """How many requests were answered."""
