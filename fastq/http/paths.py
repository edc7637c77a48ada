"""Routing by the path's bytes: a path has one spelling.

A proxy in front of the server may allow and refuse paths by their text. So a path that only means a route after
decoding, such as `//admin/keys` or `/%61dmin/keys`, is not that route. Only the fields of a path may be
percent-encoded, and they are decoded after the path is split.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from falcon import Request
from falcon.routing import CompiledRouter


def path_of(scope: dict[str, Any]) -> str:
    """Return the path of a request as the client spelled it."""
    raw: bytes | None = scope.get("raw_path")
    path: str = scope["path"] if raw is None else raw.decode("latin-1")
    return path


class ExactRouter(CompiledRouter):
    """Falcon's router over the path's own bytes."""

    def find(self, uri: str, req: Request | None = None) -> Any:
        path = uri if req is None else path_of(req.scope)  # type: ignore[attr-defined]
        if not path.startswith("/") or "//" in path:
            return None  # Falcon takes `//a` for `/a`
        found = super().find(path, req)
        if found is not None and "%" in path:
            resource, methods, fields, template = found
            return resource, methods, {name: unquote(value) for name, value in fields.items()}, template
        return found
