"""Makes the errors of the transports: what happened, and what to do."""

from __future__ import annotations

import os
import socket
import ssl

from fastq.client.errors import ServerUnreachable
from fastq.client.wire import Address

CLOSED = "the connection was closed before the answer"
CHECK_URL = "check that the URL is that of a fastq server, http or https"
START_IT = "start the server, or check the URL (url=, FASTQ_URL)"
TRUST_IT = "pass tls= with the certificate of its authority, or set SSL_CERT_FILE"
LOOK = "the server takes connections but does not answer: see its log"
FEWER = "make fewer calls at once, or give them more time with timeout_s"
PASSING = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)  # a server that stops or starts


def no_connection(address: Address, error: OSError) -> ServerUnreachable:
    """Nothing was sent. TLS errors are final: a retry meets the same certificate."""
    place = f"{address.host}:{address.port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        message = f"the certificate of {place} is not trusted: {error.verify_message}"
        return ServerUnreachable(message, sent=False, is_final=True, advice=TRUST_IT)
    if isinstance(error, ssl.SSLError) and not isinstance(error, PASSING):
        message = f"no TLS with {place}: {reason(error)}"
        return ServerUnreachable(message, sent=False, is_final=True, advice=CHECK_URL)
    if isinstance(error, socket.gaierror):
        message = f"the host {address.host} is not found: {reason(error)}"
        return ServerUnreachable(message, sent=False, advice="check the URL (url=, FASTQ_URL), or the name server")
    return ServerUnreachable(f"no connection to {place}: {reason(error)}", sent=False, advice=START_IT)


def no_answer(timeout_s: float) -> ServerUnreachable:
    """The request was sent."""
    return ServerUnreachable(f"no answer within {timeout_s:.3g} s", sent=True, advice=LOOK)


def no_free_connection(connections: int, timeout_s: float) -> ServerUnreachable:
    message = f"all {connections} connections were in use for {timeout_s:.3g} s"
    return ServerUnreachable(message, sent=False, advice=FEWER)


def reason(error: OSError) -> str:
    """The text of the error without its number."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return os.strerror(error.errno) if error.errno and error.errno > 0 else (error.strerror or str(error))
