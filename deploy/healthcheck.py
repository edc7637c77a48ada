"""Check GET /health of the server in this container, with or without TLS. Exit code 0 if it answers 200, else 1."""

from __future__ import annotations

import http.client
import os
import ssl
import sys

TIMEOUT_S = 3.0


def main() -> int:
    port = os.environ.get("FASTQ_PORT", "")  # Kubernetes sets tcp://… for a service named fastq
    port = int(port if port.isdigit() else os.environ.get("PORT") or 8080)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    if os.environ.get("TLS_CERT"):
        # The request stays on this machine, at an address that no certificate names.
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_S, context=context)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(error, file=sys.stderr)
        return 1
    print(status)
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
