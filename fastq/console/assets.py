"""The console's own files: styles, scripts, the icon. Their links carry a digest, so browsers may keep them."""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files

from fastq.console.guard import Page, Visit
from fastq.http.errors import PathNotFound
from fastq.http.routes import OPEN

TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
PATH = "/console/static/{name}"
DIGEST_CHARACTERS = 12


class Assets:
    """The files in static/, read once."""

    def __init__(self) -> None:
        found = [file for file in files("fastq.console").joinpath("static").iterdir() if _ending(file.name) in TYPES]
        self._bodies = {file.name: file.read_bytes() for file in found}
        self._digests = {name: sha256(body).hexdigest()[:DIGEST_CHARACTERS] for name, body in self._bodies.items()}

    def link(self, visit: Visit, name: str) -> str:
        """The link of a file, for templates."""
        return visit.url(PATH.format(name=name), v=self._digests[name])

    async def file(self, visit: Visit, name: str) -> None:
        if name not in self._bodies:
            raise PathNotFound
        visit.resp.content_type = TYPES[_ending(name)]
        visit.resp.data = self._bodies[name]
        if visit.query("v") == self._digests[name]:
            visit.resp.set_header("Cache-Control", "public, max-age=31536000, immutable")

    def pages(self) -> list[Page]:
        return [Page("GET", PATH, OPEN, self.file)]


def _ending(name: str) -> str:
    return name[name.rfind(".") :]
