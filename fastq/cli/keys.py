"""`fastq keys …`: API keys of a running server, or of a stopped one's data directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click
import orjson

from fastq.cli.groups import Group
from fastq.cli.key_stores import Key, Keys, Offline, Remote
from fastq.cli.log import DIRECTORY, exits_on_error
from fastq.cli.notices import notice
from fastq.cli.param_types import DURATION
from fastq.cli.remote import server_options
from fastq.cli.streams import say, say_json
from fastq.cli.tables import Column, Table, record, show

COLUMNS = (
    Column("key_id", is_whole=True), Column("type", is_whole=True), Column("owner_id", 1), Column("name", 2),
    Column("state", 3), Column("created_at", 5, True), Column("last_used_at", 4, True),
)  # fmt: skip


@click.group(cls=Group)
def keys() -> None:
    """Create, list, revoke and rotate API keys.

    FASTQ_URL names the server; FASTQ_KEY or --key-file holds an admin key. --offline changes the data directory of a
    stopped server, or Redis if REDIS_URL is set. Exit codes: 1 refused; 75 a server uses the directory.
    """


def where_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options for the server, --offline and --json."""
    command = click.option("--json", "as_json", is_flag=True, help="Print the API's JSON, one object a line.")(command)
    command = click.option("--offline", "directory", type=DIRECTORY, help="Data directory of a stopped server.")(
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
@click.option("--name", required=True, help="A name for people.")
@click.option("--owner", "owner_id", required=True, help="The owner. A client key sees only its owner's jobs.")
@click.option("--type", "kind", required=True, help="client, worker or admin.")
@click.option("--scope", "scopes", multiple=True, help="A scope, instead of those of the type. May be repeated.")
@click.option("--queue", "queues", multiple=True, help="A worker key leases only from this queue. May be repeated.")
@click.option("--rate-limit", type=int, help="Requests a second.")
@click.option("--expires-at", help="When it expires, such as 2030-01-01T00:00:00Z.")
@click.option("--claim-store", is_flag=True, help="Accept the Redis at REDIS_URL, even if it was emptied.")
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
    """Create a key. It is shown only once."""
    body: Key = {"name": name, "owner_id": owner_id, "type": kind}
    limits = {
        "scopes": list(scopes), "queues": list(queues), "rate_limit": rate_limit, "expires_at": expires_at,
    }  # fmt: skip
    body |= {field: value for field, value in limits.items() if value is not None and value != []}
    with exits_on_error():
        _show_secret(_keys(url, key_file, directory, claim_store).create(body), as_json)


@keys.command("list")
@click.option("--owner", help="Keys of this owner.")
@where_options
def list_keys(owner: str | None, url: str, key_file: Path | None, directory: Path | None, as_json: bool) -> None:
    """List keys, oldest first, with secrets masked."""
    with exits_on_error():
        found = _keys(url, key_file, directory).list_all()
        shown = [key for key in found if owner is None or key["owner_id"] == owner]
        if as_json:
            for key in shown:
                say_json(orjson.dumps(key).decode())
        else:
            table = Table(COLUMNS)
            table.add([[key[column.name] for column in COLUMNS] for key in map(_with_state, shown)])
            table.end()


@keys.command()
@click.argument("key_id")
@where_options
def revoke(key_id: str, url: str, key_file: Path | None, directory: Path | None, as_json: bool) -> None:
    """Revoke the key KEY_ID. The secret works as KEY_ID too, but stays in the shell's history."""
    with exits_on_error():
        revoked = _keys(url, key_file, directory).revoke(key_id)
        if as_json:
            say_json(orjson.dumps(revoked).decode())
        else:
            say(f"{revoked['key_id']} revoked at {revoked['revoked_at']}")


@keys.command()
@click.argument("key_id")
@click.option(
    "--overlap", "overlap_ms", type=DURATION, default="1h", show_default=True,
    help="How long the old secret still works, such as 30s.",
)  # fmt: skip
@where_options
def rotate(
    key_id: str, overlap_ms: int, url: str, key_file: Path | None, directory: Path | None, as_json: bool
) -> None:
    """Give the key KEY_ID a new secret. It is shown only once."""
    with exits_on_error():
        store = _keys(url, key_file, directory)
        store.rotate(key_id, {"overlap_ms": overlap_ms}, lambda key: _show_secret(key, as_json))


# --- output -----------------------------------------------------------------------------------------------------------


def _show_secret(key: Key, as_json: bool) -> None:
    if as_json:
        say_json(orjson.dumps(key).decode())
        return
    show(record(key))
    notice("The key is not shown again.")


def _with_state(key: Key) -> Key:
    if "revoked_at" in key:
        return key | {"state": f"revoked {key['revoked_at']}"}
    return key | {"state": f"until {key['expires_at']}" if "expires_at" in key else "active"}
