"""API keys. Only the answer to a create or rotate shows a secret. A store keeps its SHA-256 and finds the key by it.

There are two stores: the job log (`log_store`) and Redis (`redis_store`).
"""

from __future__ import annotations

from fastq.services.keys.log_store import LogKeyStore
from fastq.services.keys.records import DEFAULT_SCOPES, KEY_TYPES, Grants, KeyRecord, KeyStore

__all__ = ["DEFAULT_SCOPES", "KEY_TYPES", "Grants", "KeyRecord", "KeyStore", "LogKeyStore"]
