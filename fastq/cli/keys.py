"""`fastq keys …`: API keys of a running server, or in the data directory of a stopped one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click
import orjson

from fastq.cli.key_stores import Key, Keys, Offline, Remote
from fastq.cli.log import DIRECTORY, ends_with_its_code
from fastq.cli.notices import notice
from fastq.cli.param_types import DURATION
from fastq.cli.remote import server_options
from fastq.cli.tables import record, show, table

COLUMNS = ("key_id", "type", "owner_id", "name", "state", "created_at", "last_used_at")


@click.group()
def keys() -> None:
    """Make, list, revoke and rotate API keys.

    Of a running server: FASTQ_URL names it, FASTQ_KEY or --key-file has an admin key. With --offline in the data
    directory of a stopped one, or in Redis if REDIS_URL is set. Exit codes: 1 refused; 75 a server uses the directory.
    """


def where_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which keys, and how they are shown."""
    command = click.option("--json", "as_json", is_flag=True, help="As the API shows it; of a list one a line.")(
        command
    )
    command = click.option("--offline", "directory", type=DIRECTORY, help="The data directory of a stopped server.")(
        command
    )
    return server_options(command)


def _keys(url: str, key_file: Path | None, directory: Path | None, claim_store: bool = False) -> Keys:
    if directory is not None:
        return Offline(directory, claim_store)
    if claim_store:
        raise click.UsageError("--claim-store needs --offline")
    return Remote(url, key_file)


@keys.command()
@click.option("--name", required=True, help="For people.")
@click.option("--owner", "owner_id", required=True, help="Whose jobs it sees, if it is a client's.")
@click.option("--type", "kind", required=True, help="client, worker or admin.")
@click.option("--scope", "scopes", multiple=True, help="Instead of the type's own. May be repeated.")
@click.option("--queue", "queues", multiple=True, help="The only one that a worker leases from. May be repeated.")
@click.option("--rate-limit", type=int, help="Requests a second.")
@click.option("--expires-at", help="From then on it is refused: 2030-01-01T00:00:00Z.")
@click.option("--claim-store", is_flag=True, help="Go on with the Redis that there is, also if it was emptied.")
@where_options
def create(
    name: str,
    owner_id: str,
    kind: str,
    scopes: Sequence[str],
    queues: Sequence[str],
    rate_limit: int | None,
    expires_at: str | None,
    claim_store: bool,
    url: str,
    key_file: Path | None,
    directory: Path | None,
    as_json: bool,
) -> None:
    """Make a key, and show it this once."""
    body: Key = {"name": name, "owner_id": owner_id, "type": kind}
    limits = {
        "scopes": list(scopes), "queues": list(queues), "rate_limit": rate_limit, "expires_at": expires_at,
    }  # fmt: skip
    body |= {field: value for field, value in limits.items() if value is not None and value != []}
    with ends_with_its_code():
        _show_secret(_keys(url, key_file, directory, claim_store).create(body), as_json)


@keys.command("list")
@click.option("--owner", help="Only this owner's.")
@where_options
def list_keys(owner: str | None, url: str, key_file: Path | None, directory: Path | None, as_json: bool) -> None:
    """Show all keys, the oldest first, without their secrets."""
    with ends_with_its_code():
        found = _keys(url, key_file, directory).list_all()
        shown = [key for key in found if owner is None or key["owner_id"] == owner]
        if as_json:
            show(orjson.dumps(key).decode() for key in shown)
        else:
            show(table(COLUMNS, [[key[name] for name in COLUMNS] for key in map(_with_state, shown)]))


@keys.command()
@click.argument("key_id")
@where_options
def revoke(key_id: str, url: str, key_file: Path | None, directory: Path | None, as_json: bool) -> None:
    """End the key KEY_ID. A key itself may be named too, but stays in the shell's history."""
    with ends_with_its_code():
        revoked = _keys(url, key_file, directory).revoke(key_id)
        print(orjson.dumps(revoked).decode() if as_json else f"{revoked['key_id']} revoked at {revoked['revoked_at']}")


@keys.command()
@click.argument("key_id")
@click.option(
    "--overlap", "overlap_ms", type=DURATION, default="1h", show_default=True,
    help="How long the old secret works, as 30s or 24h.",
)  # fmt: skip
@where_options
def rotate(
    key_id: str, overlap_ms: int, url: str, key_file: Path | None, directory: Path | None, as_json: bool
) -> None:
    """Give the key KEY_ID a new secret, and show it this once."""
    with ends_with_its_code():
        _show_secret(_keys(url, key_file, directory).rotate(key_id, {"overlap_ms": overlap_ms}), as_json)


# --- what a person reads ----------------------------------------------------------------------------------------------


def _show_secret(key: Key, as_json: bool) -> None:
    if as_json:
        print(orjson.dumps(key).decode())
        return
    show(record(key))
    notice("The key is not shown again.")


def _with_state(key: Key) -> Key:
    if "revoked_at" in key:
        return key | {"state": f"revoked {key['revoked_at']}"}
    return key | {"state": f"until {key['expires_at']}" if "expires_at" in key else "active"}
