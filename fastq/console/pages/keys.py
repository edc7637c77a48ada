"""Keys: list, create, rotate, revoke. A secret is shown once, on the page that answers its making."""

from __future__ import annotations

import orjson

from fastq.console.forms import whole_number
from fastq.console.guard import Page, Visit, need
from fastq.console.parts import Parts
from fastq.http.resources.keys import create_key_fields, rotate_key_fields
from fastq.http.routes import ADMIN, SCOPES
from fastq.services.keys import KEY_TYPES, KeyRecord

READ, REVOKE = "keys:read", "keys:revoke"
PAGE_KEYS = 100
KEYS = "/console/keys"


class KeyPages:
    def __init__(self, parts: Parts) -> None:
        self._engine, self._keys, self._audit = parts.engine, parts.keys, parts.audit

    async def keys(self, visit: Visit) -> None:
        await self._show(visit)

    async def _show(self, visit: Visit, secret: str = "", made: KeyRecord | None = None) -> None:
        owner_id = None if visit.who.is_admin else visit.who.owner_id
        after_us, _, after_id = visit.query("after").partition(".")
        found: list[KeyRecord] = []
        async for page in self._keys.pages(owner_id, (whole_number(after_us or "0", "after"), after_id)):
            found += page
            if len(found) > PAGE_KEYS:
                break
        more = len(found) > PAGE_KEYS
        found = found[:PAGE_KEYS]
        visit.show(
            "keys.html",
            keys=found,
            after=f"{found[-1].created_us}.{found[-1].key_id}" if more else "",
            secret=secret,
            made=made,
            types=KEY_TYPES,
            scopes=SCOPES,
        )

    async def create(self, visit: Visit) -> None:
        form, now_us = await visit.form(), self._engine.now_us()
        given = {
            "name": form.text("name"),
            "owner_id": form.text("owner_id"),
            "type": form.text("type"),
            "scopes": form.all("scopes"),
            "queues": [name.strip() for name in form.text("queues").split(",") if name.strip()],
            "rate_limit": form.number("rate_limit"),
            "expires_at": form.text("expires_at"),
        }
        optional = ("scopes", "queues", "rate_limit", "expires_at")
        body = {name: value for name, value in given.items() if value or name not in optional}
        fields, grants = create_key_fields(orjson.dumps(body), now_us)
        who = visit.who
        details = {"name": fields.name, "owner_id": fields.owner_id, "type": fields.type}
        with self._audit.of_change(who, "key.create", **details) as audited:
            secret, made = await self._keys.create(
                fields.name, fields.owner_id, fields.type, now_us, who.key_id, grants=grants
            )
            audited.target = made.key_id
        await self._show(visit, secret, made)

    async def rotate(self, visit: Visit, key_id: str) -> None:
        form = await visit.form()
        overlap_ms = form.number("overlap_h", 3_600_000)
        fields = rotate_key_fields(b"" if overlap_ms is None else orjson.dumps({"overlap_ms": overlap_ms}))
        with self._audit.of_change(visit.who, "key.rotate", overlap_ms=fields.overlap_ms) as audited:
            audited.target = key_id
            secret, made = await self._keys.rotate(key_id, visit.who, fields.overlap_ms)
        await self._show(visit, secret, made)

    async def revoke(self, visit: Visit, key_id: str) -> None:
        form, asked_us = await visit.form(), self._engine.now_us()
        need(form.text("confirm") == "revoke", "type the word revoke to revoke the key")
        with self._audit.of_change(visit.who, "key.revoke") as audited:
            record = await self._keys.revoke(key_id, visit.who)
            audited.target = record.key_id
            audited.is_unchanged = (record.revoked_us or 0) < asked_us
        visit.go(KEYS, f"The key {record.key_id} ({record.name}) is revoked.")

    def pages(self) -> list[Page]:
        return [
            Page("GET", KEYS, READ, self.keys),
            Page("POST", KEYS, ADMIN, self.create),
            Page("POST", f"{KEYS}/{{key_id}}/rotate", ADMIN, self.rotate),
            Page("POST", f"{KEYS}/{{key_id}}/revoke", REVOKE, self.revoke),
        ]
