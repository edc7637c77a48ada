"""Checks of a JSON text that the decoder does not make: nesting, lone surrogate escapes, the size of numbers."""

from typing_extensions import Buffer

def scan(text: Buffer, depth_max: int) -> str:
    """Look for nesting deeper than `depth_max` and for lone surrogate escapes.

    Returns:
        "" if there is neither, else "depth" or "surrogate": whichever comes first.
    """

def numbers_fit(text: Buffer, length_max: int) -> bool:
    """Whether each number of a JSON text has at most `length_max` (0 to 400) characters and fits into a double."""
