"""One pass over a JSON text for what the decoder does not look at: nesting, and surrogate escapes that stand alone."""

from typing_extensions import Buffer

def scan(text: Buffer, depth_max: int) -> str:
    """Look for nesting past `depth_max` and for surrogate escapes without their other half.

    Returns:
        "" if there is neither, else "depth" or "surrogate": whichever comes first.
    """
