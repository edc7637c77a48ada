"""The lane: the few requests that make up the load go from bytes to bytes, without ASGI."""

from typing import final

from fastq._core import Core
from fastq.engine import Engine
from fastq.http.connection.protocol import Protocol
from fastq.http.request_ids import RequestIds
from fastq.services.auth import Authenticator

class Lane(Protocol):
    """To be given to uvicorn as `http=`. The application's `short_way` answers what takes it."""

@final
class Answers:
    """The answers of one connection that were not sent yet, in order."""

    waiting: int
    taken: int

@final
class ShortWay:
    """Plain submits, leases and acks from the bytes of a request to the core and to the bytes of its answer.

    One for the server. All its methods belong to the event loop's thread.
    """

    def __init__(self, engine: Engine, core: Core, auth: Authenticator, request_ids: RequestIds) -> None: ...
    def send_due(self) -> None:
        """A batch is durable: send what waited for it."""

    def end_turn(self) -> None:
        """The loop has turned: what was looked up for one turn of it is looked up again."""
