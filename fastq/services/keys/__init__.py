"""API keys. A key's secret is shown once, when it is made; what is kept is its SHA-256, and it is looked up by that.

Two stores: the log that holds the jobs (`log_store`), or Redis (`redis_store`).
"""

from __future__ import annotations

from fastq.services.keys.log_store import LogKeyStore
from fastq.services.keys.records import DEFAULT_SCOPES, KEY_TYPES, Grants, KeyRecord, KeyStore

__all__ = ["DEFAULT_SCOPES", "KEY_TYPES", "Grants", "KeyRecord", "KeyStore", "LogKeyStore"]
