"""All random numbers of the SDK: keys and jitter."""

from __future__ import annotations

import random
import secrets


def new_key() -> str:
    """A unique key: 24 URL-safe characters, 144 random bits."""
    return secrets.token_urlsafe(18)


def jitter() -> float:
    """A factor for a wait, in [0.5, 1): it spreads the retries of many clients."""
    return 0.5 + random.random() / 2
