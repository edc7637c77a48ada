"""The hot lane: the few requests that make up the load, from parsed bytes to the engine and back, without ASGI."""

from fastq.http.protocol import Protocol

class Lane(Protocol):
    """To be given to uvicorn as `http=`. The application's `hot` says what is answered here, and how."""
