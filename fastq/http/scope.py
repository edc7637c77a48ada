"""Keys under which a connection passes objects to the application in a request's ASGI scope."""

from __future__ import annotations

CONNECTION = "fastq.connection"  # the connection that the answer goes to
GRANTED = "fastq.granted"  # the leases that the short way granted: fastq/http/lane/granted.py
