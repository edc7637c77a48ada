"""What the decoder does not look at in a JSON text: nesting, lone surrogate escapes, the size of numbers."""

from typing_extensions import Buffer

def scan(text: Buffer, depth_max: int) -> str:
    """Look for nesting past `depth_max` and for surrogate escapes without their other half.

    Returns:
        "" if there is neither, else "depth" or "surrogate": whichever comes first.
    """

def numbers_fit(text: Buffer, length_max: int) -> bool:
    """Whether each number of a JSON text has at most `length_max` (0 to 400) characters and fits into a double."""
