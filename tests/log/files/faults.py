"""One life of a log for each fault: the n-th call of a kind fails. Forked from a process that has the shim loaded.

    LD_PRELOAD=iotrace.so IOTRACE_DIR=DIRECTORY python -m tests.log.files.faults DIRECTORY KIND ERROR STEP

For n = 1, 1 + STEP, … a fresh copy of a small log is opened, written to and closed while the n-th call of KIND fails
with ERROR, until one life needs fewer calls than n. A line of JSON reports how each ended.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

from fastq.errors import LogFailed, StartError
from tests.log.files.crashes import recover
from tests.log.files.life import _shim, log_of
from tests.log.files.writer import Writer

KINDS = {"write": 1, "sync": 2, "open": 3, "rename": 4, "truncate": 5, "unlink": 6}
ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "short": -1}
SIZES = [10, 3000, 700, 6000, 40, 5000, 2000, 6000, 100, 4000, 300]
FAILED, REFUSED, BROKEN = 70, 65, 1


async def live(directory: Path, acked: int) -> None:
    """Open, write over several segments, close. Each acknowledged document's name goes to the pipe `acked`."""
    log = log_of(directory)
    writer = Writer(log).open()
    os.write(acked, b"opened\n")
    await writer.start()
    for number, size in enumerate(SIZES):
        await writer.room(size)
        await writer.write(f"{writer.opened.epoch}-{number}", bytes([65 + number]) * size)
        os.write(acked, f"{writer.opened.epoch}-{number}\n".encode())
        if log.disk_full:
            os.write(acked, b"full\n")
    await log.close()


def end_of(directory: Path, acked: int) -> int:
    """The life's exit code, as a server would choose it."""
    try:
        asyncio.run(live(directory, acked))
    except LogFailed:
        return FAILED
    except (StartError, OSError):
        return REFUSED
    except BaseException:  # noqa: BLE001 - a forked child ends here, whatever happened
        traceback.print_exc()
        return BROKEN
    return 0


def try_fault(directory: Path, seed: Path, kind: str, error: str, n: int) -> dict[str, Any]:
    """Run a life with one fault, and check what the next one finds."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(seed, directory)
    acked_out, acked_in = os.pipe()
    reached_out, reached_in = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(acked_out)
        _shim().iotrace_arm(KINDS[kind], n, ERRORS[error])
        code = end_of(directory, acked_in)
        os.write(reached_in, str(_shim().iotrace_calls()).encode())
        os._exit(code)
    os.close(acked_in)
    os.close(reached_in)
    with os.fdopen(acked_out, "rb") as told:
        said = told.read().decode().split()
    with os.fdopen(reached_out, "rb") as reached:
        calls = int(reached.read() or b"-1")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {"n": n, "code": code, "calls": calls, "said": said, **after(directory, said)}


def after(directory: Path, said: list[str]) -> dict[str, Any]:
    """Check that the next process finds every acknowledged document, and can go on."""
    found = b"".join(recover(directory))
    names = [name for name in said if name not in ("opened", "full")]
    missing = [name for name in names if name.encode() not in found]
    sizes = [size for number, size in enumerate(SIZES) if any(name.endswith(f"-{number}") for name in names)]
    wrong = [n for n, size in enumerate(sizes) if bytes([65 + n]) * size not in found]

    async def go_on() -> list[str]:
        writer = await Writer(log_of(directory)).open().start()
        await writer.write("more", b"more")
        await writer.log.close()
        return list(writer.documents())

    documents = asyncio.run(go_on())
    return {"missing": missing + [n for n in names if n not in documents], "wrong": wrong, "after": len(documents)}


def main() -> None:
    directory, kind, error, step = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    seed = directory.with_name("seed")
    n = 1
    while True:
        result = try_fault(directory, seed, kind, error, n)
        print(json.dumps(result), flush=True)
        if 0 <= result["calls"] < n:
            return
        n += step


if __name__ == "__main__":
    main()
