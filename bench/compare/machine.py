"""Figures of the machine: processor time and memory of process trees, the disk's latency, its description."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import time
from pathlib import Path

TICKS_S = os.sysconf("SC_CLK_TCK")
SYNC_SIZES_BYTES = (4096, 65536)


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        if fields := read(path).rpartition(")")[2].split():
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    pids = [pid]
    for parent in pids:  # grows while it is iterated
        pids += children.get(parent, [])
    return pids


def read(path: Path) -> str:
    """Read a file of /proc; empty if the process has ended."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def cpu_s(pid: int) -> float:
    """User and system time of a process tree so far, ended children included.

    Uses the scheduler's nanoseconds: ticks round down, which loses the time of hundreds of short processes.
    """
    ns = 0
    for each in tree(pid):
        for task in Path(f"/proc/{each}/task").glob("*"):
            ns += int((read(task / "schedstat").split() or ["0"])[0])
        ended_ticks = map(int, read(Path(f"/proc/{each}/stat")).rpartition(")")[2].split()[13:15])
        ns += sum(ended_ticks) * (10**9 // TICKS_S)
    return ns / 1e9


def memory_bytes(pid: int) -> int:
    """Resident memory of a process tree. A page shared by n processes counts as an nth for each (PSS)."""
    total_kb = 0
    for each in tree(pid):
        found = re.search(r"^Pss:\s+(\d+) kB", read(Path(f"/proc/{each}/smaps_rollup")), re.MULTILINE)
        total_kb += int(found[1]) if found else 0
    return total_kb * 1024


def disk_bytes(directory: Path) -> int:
    """The disk that the files under a directory take, preallocated blocks included."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except FileNotFoundError:
            continue  # deleted just now
    return total


def sync_us(directory: Path, size_bytes: int, count: int = 200) -> float:
    """The median time of write and fdatasync over blocks that were written before, microseconds."""
    path = directory / "sync-probe"
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(fd, bytes(size_bytes * count), 0)
        os.fsync(fd)
        times = []
        for i in range(count):
            begun = time.perf_counter()
            os.pwrite(fd, b"x" * size_bytes, size_bytes * i)
            os.fdatasync(fd)
            times.append(time.perf_counter() - begun)
    finally:
        os.close(fd)
        path.unlink()
    return statistics.median(times) * 1e6


def described(directory: Path) -> dict[str, str]:
    """Machine, system and file system, for the head of a report."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    mount = subprocess.run(
        ["findmnt", "-no", "FSTYPE,SOURCE,OPTIONS", "--target", directory], capture_output=True, text=True, check=True
    )
    return {
        "processor": f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "unknown",
        "kernel": platform.release(),
        "file system": " ".join(mount.stdout.split()),
        "Python": platform.python_version(),
    }
