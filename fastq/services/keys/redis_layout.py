"""The layout of keys in Redis: that of the original queue, and fastq's, which has no secrets.

The original's keys: HASH `api_key:<secret>` with key, name, owner_id, type, scopes (JSON), created_at, revoked_at and
last_used_at (Unix seconds, empty for none). The secret is a member of `owner:<owner>:keys`, `keys:type:<type>`, and of
`keys:active` or `keys:revoked`. fastq's keys: the same with the key_id instead of the secret, `digest` and further
fields, and `api_key_digest:<sha256>` -> key_id.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256

import msgspec

from fastq.services.keys.records import DEFAULT_SCOPES, KeyRecord, digest_of, masked

ACTIVE, REVOKED = "keys:active", "keys:revoked"
STORE = "fastq:store"  # the store's random id, which the log has too
CHANGES = "fastq:changes"  # counts changes of keys that the sets do not show
SECOND_US = 1_000_000

# The form of a secret. The original's have 39 characters; some users adopt their own.
MAY_BE_SECRET = re.compile(r"[A-Za-z0-9._-]{16,256}")

# KEYS: hash, keys:active, keys:revoked. ARGV: member, seconds. A key that does not exist is not created.
REVOKE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local before = redis.call('HGET', KEYS[1], 'revoked_at')
if not before or before == '' then redis.call('HSET', KEYS[1], 'revoked_at', ARGV[2]) end
redis.call('SREM', KEYS[2], ARGV[1])
redis.call('SADD', KEYS[3], ARGV[1])
return 1
"""

# KEYS: hashes. ARGV: seconds, one each.
USED = """
for place, key in ipairs(KEYS) do
    if redis.call('EXISTS', key) == 1 then redis.call('HSET', key, 'last_used_at', ARGV[place]) end
end
"""


class KeyInRedis(msgspec.Struct, frozen=True):
    """A key in Redis. `member` is its name in the sets: its key_id, or the secret of an original key."""

    member: str
    record: KeyRecord
    digest: str  # empty for an original key, whose member is the secret
    old_digest: str = ""
    old_until_us: int = 0

    def as_seen_with(self, secret: str) -> KeyRecord | None:
        """Return the record if `secret` is one of its secrets, else None."""
        if not self.digest:
            return self.record if secret == self.member else None
        digest = digest_of(secret)
        if digest == self.digest:
            return self.record
        return self.record.until(self.old_until_us) if digest == self.old_digest else None


def hash_of(member: str) -> str:
    return f"api_key:{member}"


def id_of_digest(digest: str) -> str:
    return f"api_key_digest:{digest}"


def owner_set(owner_id: str) -> str:
    return f"owner:{owner_id}:keys"


def type_set(type: str) -> str:
    return f"keys:type:{type}"


def derived_key_id(secret: str, type: str) -> str:
    """Return the key_id of an original key. It is made of the secret's digest, so it does not reveal the secret."""
    return f"{type}_{urlsafe_b64encode(sha256(secret.encode()).digest())[:12].decode()}"


def decoded(member: str, found: Mapping[bytes, bytes]) -> KeyInRedis | None:
    """Decode a hash. None if it is not a valid key."""
    try:
        fields = {name.decode(): value.decode() for name, value in found.items()}
        digest, kind = fields.get("digest", ""), fields["type"]
        if fields["key"] != member or kind not in DEFAULT_SCOPES or not fields["owner_id"]:
            return None
        created_us = _us(fields["created_at"]) or 0
        record = KeyRecord(
            key_id=member if digest else derived_key_id(member, kind),
            masked=fields["masked"] if digest else masked(member),
            name=fields["name"],
            owner_id=fields["owner_id"],
            type=kind,
            scopes=tuple(msgspec.json.decode(fields["scopes"], type=list[str])),
            created_us=created_us,
            revoked_us=_us(fields.get("revoked_at", "")),
            last_used_us=_us(fields.get("last_used_at", "")) or created_us,
            expires_us=_integer(fields.get("expires_us", "")),
            queues=_queues(fields.get("queues", "")),
            rate_limit=_integer(fields.get("rate_limit", "")),
        )
        return KeyInRedis(
            member, record, digest, fields.get("old_digest", ""), _integer(fields.get("old_until_us", "")) or 0
        )
    except (KeyError, ValueError):  # msgspec's errors and Unicode's are ValueErrors
        return None


def encoded(key: KeyInRedis) -> dict[str, str]:
    """Return a fastq key as the fields of its hash."""
    record = key.record
    return {
        "key": record.key_id,
        "name": record.name,
        "owner_id": record.owner_id,
        "type": record.type,
        "scopes": msgspec.json.encode(record.scopes).decode(),
        "created_at": str(record.created_us // SECOND_US),
        "revoked_at": "" if record.revoked_us is None else str(record.revoked_us // SECOND_US),
        "last_used_at": str(record.last_used_us // SECOND_US),
        "digest": key.digest,
        "masked": record.masked,
        "expires_us": "" if record.expires_us is None else str(record.expires_us),
        "queues": "" if record.queues is None else msgspec.json.encode(sorted(record.queues)).decode(),
        "rate_limit": "" if record.rate_limit is None else str(record.rate_limit),
        "old_digest": key.old_digest,
        "old_until_us": str(key.old_until_us) if key.old_digest else "",
    }


def _us(seconds: str) -> int | None:
    return None if seconds == "" else int(float(seconds) * SECOND_US)


def _integer(text: str) -> int | None:
    return int(text) if text else None


def _queues(text: str) -> frozenset[str] | None:
    return frozenset(msgspec.json.decode(text, type=list[str])) if text else None
