"""schemathesis against a real server: requests that openapi.json allows or forbids; each answer must match it.

    python -m tests.http.fuzz [--examples N] [--seed N]        (`./dev fuzz`)

It is its own module of hooks too: schemathesis loads it by SCHEMATHESIS_HOOKS.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, GenerationMode, HookContext, Response

from tests.served import ROOT, Served

OWN_KEY_ID = "FUZZ_OWN_KEY_ID"
WAIT_MS = 20  # no request waits longer: schemathesis gives up after 10 s
STREAM = "/events"  # its answer does not end
LONG_EXAMPLES = 500  # for each operation

# Rules that no schema can express, by the words of their errors.
REASONS = (
    "must be in the future",
    "must be left out",
    "must have printable characters only",
    "must be at most 10 years ahead",
    "must be empty when outcome is ok",
    "job not found",
    "job cannot be acked in state",
    "each number must have",
    "a surrogate escape without its other half",
    "must be an RFC 3339 time",
    "must have printable characters only",
    "nested deeper than",
    "cursor must be one that this server returned",
    "one of payload, priority, delay_ms, run_at and queue is required",
    "idempotency_key must be the same as the header",
    "backoff.cap_ms must be >= backoff.base_ms",
    "filter must have at least one member",
    "one of cron and every_ms is required, and not both",
    "one of ack, submit and extend is required",
    "overlap must be allow when catch_up is all",
    "job_id must be different from that of every other",
    "lease_token is required",
    "worker_id must be 1 to 200 bytes",
    "job: payload is required",
    "cron must have 5 fields",
    "must be the name of an IANA time zone",
)


@schemathesis.hook
def map_body(_context: HookContext, body: Any) -> Any:
    """1.0 is an integer to JSON Schema; here integers are written without a fraction, as the document says."""
    if isinstance(body, dict):
        return {name: value if name in ("payload", "result") else map_body(_context, value)
                for name, value in body.items()}  # fmt: skip
    if isinstance(body, list):
        return [map_body(_context, value) for value in body]
    return int(body) if isinstance(body, float) and body.is_integer() else body


@schemathesis.hook
def before_call(_context: HookContext, case: Case, _arguments: dict[str, Any]) -> None:
    """What it learns from a list of keys is its own key too: that one is neither revoked nor rotated."""
    own = os.environ[OWN_KEY_ID]
    if isinstance(case.body, dict) and isinstance(case.body.get("wait_ms"), int | float):
        case.body["wait_ms"] = min(case.body["wait_ms"], WAIT_MS)
    if case.query and str(case.query.get("wait_ms", "")).isdigit():
        case.query["wait_ms"] = min(int(case.query["wait_ms"]), WAIT_MS)
    if case.path_parameters:
        case.path_parameters.update({name: "absent" for name, value in case.path_parameters.items() if value == own})


@schemathesis.check
def refused_for_a_reason(_context: CheckContext, response: Response, case: Case) -> bool | None:
    """A request that the document allows is refused only by a rule that no schema can express."""
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE or response.status_code != 400:
        return None
    message = response.json()["error"]
    if not any(reason in message for reason in REASONS):
        raise AssertionError(f"the document allows it, and the server says: {message}")
    return None


def fuzz(directory: Path, examples: int, seed: int) -> subprocess.CompletedProcess[str]:
    """Against a server of its own with an admin key; what schemathesis says. Nothing may be in its standard error."""
    with Served(directory / "data") as server:
        key = server.keys["admin"]
        _, keys = server.call(key, "GET", "/admin/keys")
        (own,) = [one["key_id"] for one in keys if one["type"] == "admin"]
        done = subprocess.run(
            [
                str(Path(sys.executable).parent / "schemathesis"), "run",
                f"http://127.0.0.1:{server.port}/openapi.json", "--header", f"Authorization: Bearer {key}",
                "--exclude-path", STREAM, "--max-examples", str(examples), "--seed", str(seed),
                "--exclude-checks", "positive_data_acceptance,ignored_auth", "--continue-on-failure", "--no-color",
            ],
            cwd=directory,
            env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.http.fuzz", "PYTHONPATH": str(ROOT), OWN_KEY_ID: own},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        status, answer = server.call(key, "GET", "/admin/keys")
        assert status == 200, f"the key was lost on the way: {answer}\n{done.stdout}"
        assert "ERROR" not in server.stderr, server.stderr
    return done


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev fuzz", description="schemathesis against a server of its own")
    parser.add_argument("--examples", type=int, default=LONG_EXAMPLES, help="for each operation")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        done = fuzz(Path(directory), options.examples, options.seed)
    print(done.stdout)
    print(f"seed {options.seed}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
