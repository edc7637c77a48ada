"""The project's own files: neither ignored by git nor produced by a tool."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

TEXT_SUFFIXES = {
    ".cfg", ".h", ".in", ".json", ".md", ".pxd", ".pxi", ".py", ".pyi", ".pyx", ".toml", ".txt", ".yaml", ".yml",
}  # fmt: skip
CYTHON_SUFFIXES = {".pxd", ".pxi", ".pyx"}


def ignored_patterns() -> list[str]:
    lines = (ROOT / ".gitignore").read_text().splitlines()
    return [".git", *(line.rstrip("/") for line in lines if line and not line.startswith("#"))]


def text_files(*tops: str) -> Iterator[tuple[str, str]]:
    """(path from the root, text) of every file of the project below `tops`, or of all."""
    patterns = ignored_patterns()

    def walk(directory: Path) -> Iterator[tuple[str, str]]:
        for entry in sorted(directory.iterdir()):
            path = entry.relative_to(ROOT).as_posix()
            if any(fnmatch(path, pattern) or fnmatch(entry.name, pattern) for pattern in patterns):
                continue
            if entry.is_dir():
                yield from walk(entry)
            elif entry.suffix in TEXT_SUFFIXES or not entry.suffix or entry.name == ".gitignore":
                yield path, entry.read_text(errors="replace")

    for top in tops or (".",):
        yield from walk(ROOT / top)
