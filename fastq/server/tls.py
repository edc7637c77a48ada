"""The server's certificate."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from fastq.errors import BadSetting


def tls_of(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Load TLS_CERT with TLS_KEY. Return None if neither is set. Raises BadSetting."""
    if cert is None or key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(os.fspath(cert), os.fspath(key), password="")
    except (ssl.SSLError, OSError) as error:
        raise BadSetting(
            f"TLS_CERT: '{cert}' with TLS_KEY '{key}' cannot be used; allowed: a PEM certificate and its key without a "
            f"passphrase ({error})"
        ) from None
    return context
