"""Where the SDK draws at random: keys that no two requests share, and the share of a wait."""

from __future__ import annotations

import random
import secrets


def new_key() -> str:
    """24 characters that nobody draws twice."""
    return secrets.token_urlsafe(18)


def jitter() -> float:
    """Of [0.5, 1): how much of a wait is waited, so that many clients do not come back at once."""
    return 0.5 + random.random() / 2
