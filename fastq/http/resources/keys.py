"""API keys: make, list, revoke, rotate."""

from __future__ import annotations

from falcon.asgi import Request, Response

from fastq.engine import Engine
from fastq.http import decoding
from fastq.http.errors import JSON
from fastq.http.resources import answers, bodies, key_bodies
from fastq.http.routes import ADMIN, DISK_FULL, TOO_MUCH, WITH_BODY, Answer, Route
from fastq.services.audit import Audit
from fastq.services.keys import KeyRecord, KeyStore

NO_KEY = Answer(404, "no such key", answers.Failure)


class ApiKeys:
    """The responders of /keys and /admin/keys. A secret is in one answer only: the one that makes it."""

    def __init__(self, engine: Engine, keys: KeyStore, audit: Audit) -> None:
        self._engine = engine
        self._keys = keys
        self._audit = audit

    async def create(self, req: Request, resp: Response) -> None:
        body = await decoding.read_body(req, bodies.SMALL_BODY_BYTES_MAX)
        now_us = self._engine.now_us()
        fields, grants = key_bodies.create_key_fields(body, now_us)
        who = req.context.principal
        details = {"name": fields.name, "owner_id": fields.owner_id, "type": fields.type}
        with self._audit.saying(who, "key.create", **details) as said:
            secret, record = await self._keys.create(
                fields.name, fields.owner_id, fields.type, now_us, who.key_id, grants=grants
            )
            said.target = record.key_id
        resp.status = 201
        self._show_secret(resp, secret, record)

    async def rotate(self, req: Request, resp: Response, key_id: str) -> None:
        fields = key_bodies.rotate_key_fields(await decoding.read_body(req, bodies.SMALL_BODY_BYTES_MAX))
        who = req.context.principal
        with self._audit.saying(who, "key.rotate", overlap_ms=fields.overlap_ms) as said:
            said.target = key_id
            secret, record = await self._keys.rotate(key_id, who, fields.overlap_ms)
        self._show_secret(resp, secret, record)

    @staticmethod
    def _show_secret(resp: Response, secret: str, record: KeyRecord) -> None:
        resp.content_type = JSON
        resp.set_header("Cache-Control", "no-store")
        resp.data = answers.key_with_secret(secret, record)

    async def list_all(self, _req: Request, resp: Response) -> None:
        resp.content_type = JSON
        resp.data = answers.keys_listed(await self._keys.list(None))

    async def list_own(self, req: Request, resp: Response) -> None:
        resp.content_type = JSON
        resp.data = answers.keys_listed(await self._keys.list(req.context.principal.owner_id))

    async def revoke(self, req: Request, resp: Response, key: str) -> None:
        asked_us = self._engine.now_us()
        with self._audit.saying(req.context.principal, "key.revoke") as said:
            record = await self._keys.revoke(key, req.context.principal)
            said.target = record.key_id
            said.nothing = (record.revoked_us or 0) < asked_us  # it was revoked before
        resp.content_type = JSON
        resp.data = answers.key_revoked(record)

    def routes(self) -> list[Route]:
        return [*self._changes(), *self._lists()]

    def _changes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/admin/keys",
                ADMIN,
                self.create,
                "Make a key",
                (
                    Answer(201, "the key, its secret shown this once", answers.KeyShown),
                    *WITH_BODY,
                    *TOO_MUCH,
                    DISK_FULL,
                ),
                key_bodies.CreateKeyBody,
            ),
            Route(
                "POST",
                "/admin/keys/{key_id}/rotate",
                ADMIN,
                self.rotate,
                "Give a key a new secret, beside which the one that it had works for a while",
                (
                    Answer(200, "the key, its new secret shown this once", answers.KeyShown),
                    NO_KEY,
                    Answer(409, "the key is revoked", answers.Failure),
                    *WITH_BODY,
                    *TOO_MUCH,
                    DISK_FULL,
                ),
                key_bodies.RotateKeyBody,
                body_optional=True,
            ),
            Route(
                "DELETE",
                "/keys/{key}",
                "keys:revoke",
                self.revoke,
                "Revoke a key, named by its key_id or its secret",
                (
                    Answer(200, "the key is revoked, now or before", answers.KeyRevoked),
                    NO_KEY,
                    *TOO_MUCH,
                    DISK_FULL,
                ),
            ),
        ]

    def _lists(self) -> list[Route]:
        listed = (Answer(200, "the oldest first, revoked ones included", list[answers.KeyShown]),)
        return [
            Route("GET", "/admin/keys", ADMIN, self.list_all, "List all keys", listed),
            Route("GET", "/keys", "keys:read", self.list_own, "List the keys of the caller's owner", listed),
        ]
