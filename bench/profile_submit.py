"""Where the processor time of one durable submit over HTTP goes: `python -m bench.profile_submit` (needs perf).

The server runs on one core, the load generator of `./dev bench` on another. A load without perf gives the processor
time of a submit, in microseconds over all threads of the server. A second load under `perf record` (cpu-clock, stacks
by DWARF) gives the shares. A sample belongs to the innermost frame that PARTS knows: a dictionary lookup called from
the lane is the lane's. `--consumers 64` profiles a cycle of submit, lease and ack, `--batch 100` a job in batches.
`--python` adds the Python functions, sampled by py-spy (pip install py-spy). py-spy stops the process for each sample,
so only the proportions count.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click

from bench.compare import generator, machine
from bench.compare.install import apt_install
from bench.compare.systems import Fastq

HERTZ = 1999
STACK_BYTES = 16384  # of each sample; deeper frames are cut off
FUNCTIONS = 40

# (part, a pattern of one of its frames: function, blank, file). The innermost frame that matches decides.
PARTS = [
    ("llhttp and httptools", r"httptools"),
    ("JSON", r"msgspec|^\S*(json|scan|lane_past_|lane_read_|_member|_plain_|is_utf8|code_unit)\S* .*fastq/http/"),
    ("uvloop and libuv", r"uvloop"),
    ("asyncio", r" .*/_asyncio\."),
    ("garbage collector", r"^gc_collect"),
    ("auth", r"^\S*([Aa]uth|known|principal|_admits|_read_key)\S* .*fastq/http/"),
    ("reply", r"^\S*(flush|[Aa]nswer|reply|put_|_put|send_visible|send_due)\S* .*fastq/http/"),
    ("lane: heads, headers, bodies", r" .*fastq/http/"),
    ("encode: records into the batch", r"_core_(append_|put_|open_record|submit_flags|submit_bytes|4Tail_)"),
    ("core", r" .*fastq/_core\."),
    ("commit: flusher", r" .*/_flusher\."),
    ("Python code", r"^_PyEval_EvalFrameDefault"),
]
# For a sample in the kernel all kernel frames are searched: the system call is the outermost.
KERNEL_PARTS = [
    ("kernel: epoll", r"__x64_sys_epoll"),
    ("kernel: disk", r"__x64_sys_(fdatasync|fsync|pwrite|pwritev|pread|fallocate|io_)"),
    ("kernel: wake-ups between threads", r"__x64_sys_futex|eventfd_"),
    ("kernel: scheduler, interrupts", r"exit_to_user_mode_loop|sysvec|schedule"),
    ("kernel: sockets", r"ksys_(read|write)|__x64_sys_(recv|send|accept)"),
    ("kernel: memory", r"page_fault|__x64_sys_(m?map|munmap|madvise|brk)"),
    ("kernel: other", r""),
]
OTHER = "other"
_FRAME = re.compile(r"^\s+[0-9a-f]+ (.+) \((.*)\)$")


@dataclass(frozen=True)
class Sample:
    """`frames`: (function, file), innermost first. `is_loop`: taken on the event loop's thread."""

    is_loop: bool
    frames: list[tuple[str, str]]

    @property
    def part(self) -> str:
        texts = [f"{function} {file}" for function, file in self.frames]
        if texts and "[kernel" in texts[0]:
            stack = "\n".join(text for text in texts if "[kernel" in text)
            return next(name for name, pattern in KERNEL_PARTS if re.search(pattern, stack))
        for text in texts:
            for name, pattern in PARTS:
                if re.search(pattern, text):
                    return name
        return OTHER

    @property
    def function(self) -> str:
        """The innermost function outside of the kernel, the C library and the interpreter."""
        for function, file in self.frames:
            if function.startswith("_PyEval_EvalFrameDefault"):
                return "(Python code)"
            if not re.search(
                r"\[kernel|libc\.|libpython|ld-linux|/python3[^/]*$|\[unknown\]|\[vdso", f"{function} {file}"
            ):
                return readable(function)
        return self.frames[0][0] if self.frames else OTHER


def readable(function: str) -> str:
    """A C function's name; for one made by Cython, its module and name in the source."""
    found = re.match(r"__pyx_(pw|pf|f|gb|getprop|setprop|tp_\w+?|mdef|specialmethod\w*?)_(.*)", function)
    if found is None:
        return function
    rest, names = found[2], []
    while (digits := re.match(r"\d+", rest)) is not None:
        size, after = int(digits[0]), rest[len(digits[0]) :]
        if size > len(after) or (size < len(after) and after[size] != "_"):
            rest = after  # not a length: Cython counts the functions of a class
            break
        names.append(after[:size])
        rest = after[size + 1 :]
    return ".".join([*names[-2:], rest] if rest else names[-3:])


def samples(text: str, loop_thread: int) -> Iterator[Sample]:
    """Parse the output of `perf script -F tid,ip,sym,dso`."""
    for block in text.split("\n\n"):
        lines = block.strip("\n").split("\n")
        if lines[0].strip().isdigit():
            frames = [(found[1], found[2]) for line in lines[1:] if (found := _FRAME.match(line))]
            yield Sample(int(lines[0]) == loop_thread, frames)


@contextmanager
def recorded(pid: int, data: Path) -> Iterator[None]:
    """Record a process with perf."""
    command = [
        "perf", "record", "-q", "-e", "cpu-clock", "-F", str(HERTZ), "--call-graph", f"dwarf,{STACK_BYTES}",
        "-p", str(pid), "-o", str(data),
    ]  # fmt: skip
    with subprocess.Popen(command) as perf:
        yield
        perf.send_signal(signal.SIGINT)


@contextmanager
def watched(pid: int, data: Path) -> Iterator[None]:
    """Sample a process with py-spy."""
    command = ["py-spy", "record", "-f", "raw", "-r", "500", "-o", str(data), "-p", str(pid)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as spy:
        yield
        spy.send_signal(signal.SIGINT)


@dataclass(frozen=True)
class Load:
    program: Path
    connections: int
    consumers: int
    batch: int
    seconds: float

    def run(self, server: Fastq) -> generator.Figures:
        return generator.load(
            self.program, server.plan(self.batch), server.port, producers=self.connections, consumers=self.consumers,
            seconds=self.seconds, command=["taskset", "-c", "1"], server_cpu_s=server.cpu_s,
        )  # fmt: skip

    def operations(self, figures: generator.Figures) -> int:
        return figures.acked if self.consumers else figures.submitted


def parts_table(seen: list[Sample], us: float) -> Iterator[str]:
    """Args: us: processor time of an operation, microseconds."""
    shares = Counter((sample.part, sample.is_loop) for sample in seen)
    parts = Counter(sample.part for sample in seen)
    yield "| part | share | µs | of these on the event loop's thread |"
    yield "|---|---:|---:|---:|"
    for part, count in parts.most_common():
        share, on_loop = count / len(seen), shares[part, True] / len(seen)
        yield f"| {part} | {share:.1%} | {share * us:.2f} | {on_loop * us:.2f} |"
    yield f"| all | 100% | {us:.2f} | {sum(sample.is_loop for sample in seen) / len(seen) * us:.2f} |"


def functions_table(seen: list[Sample], us: float) -> Iterator[str]:
    yield "| function, with what it calls in the interpreter, the C library and the kernel | part | share | µs |"
    yield "|---|---|---:|---:|"
    found = Counter((sample.function, sample.part) for sample in seen)
    for (function, part), times in found.most_common(FUNCTIONS):
        yield f"| `{function}` | {part} | {times / len(seen):.1%} | {times / len(seen) * us:.2f} |"


def python_table(text: str) -> Iterator[str]:
    """From py-spy's raw stacks: samples in each Python function of fastq and in the C and Cython functions it calls."""
    found: Counter[str] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        ours = [frame for frame in stack.split(";") if "fastq/" in frame]
        if ours:
            found[re.sub(r":\d+\)$", ")", ours[-1])] += int(count)
    waits = "run (fastq/server/run.py)"  # the event loop itself
    found.pop(waits, None)
    yield "| Python function, with the C and Cython functions that it calls | share of fastq's own |"
    yield "|---|---:|"
    for function, times in found.most_common(FUNCTIONS):
        yield f"| `{function}` | {times / found.total():.1%} |"


def measured(scratch: Path, load: Load, with_python: bool) -> Iterator[str]:
    """The report, line by line."""
    with Fastq(scratch / "data", "0") as server:
        replace(load, seconds=min(load.seconds, 2.0)).run(server)
        alone = load.run(server)
        us = alone.server_cpu_s / load.operations(alone) * 1e6
        with recorded(server.pid, scratch / "perf.data"):
            load.run(server)
        if with_python:
            with watched(server.pid, scratch / "spy"):
                load.run(server)
        script = ["perf", "script", "-i", str(scratch / "perf.data"), "--no-inline", "-F", "tid,ip,sym,dso"]
        said = subprocess.run(script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
        seen = list(samples(said, server.pid))
        version = server.version()
    what = "cycle of submit, lease and ack" if load.consumers else "submit"
    yield (
        f"{version}, {load.connections} + {load.consumers} connections, batches of {load.batch}: "
        f"{load.operations(alone) / alone.seconds:,.0f} a second, {us:.2f} µs of processor time of the server for each "
        f"{what}; the generator used {alone.generator_share:.0%} of its core. {len(seen):,} samples; "
        f"fdatasync of 4 KiB: {machine.sync_us(scratch, 4096):.0f} µs."
    )
    for table in (parts_table(seen, us), functions_table(seen, us)):
        yield ""
        yield from table
    if with_python:
        yield ""
        yield from python_table((scratch / "spy").read_text())


def need(program: str, package: str) -> None:
    say: Callable[[str], None] = lambda line: click.echo(line, err=True)  # noqa: E731
    if shutil.which(program) is None:
        apt_install([package], say)
    if shutil.which(program) is None:
        raise click.ClickException(f"{program} is not installed (as root: apt-get install {package})")


@click.command()
@click.option("--connections", default=64, show_default=True, help="that submit")
@click.option("--consumers", default=0, show_default=True, help="connections that lease and ack")
@click.option("--batch", default=1, show_default=True, help="jobs in a submit")
@click.option("--seconds", default=6.0, show_default=True, help="of each load")
@click.option("--python/--no-python", "with_python", default=False, help="by py-spy: which Python functions")
def main(connections: int, consumers: int, batch: int, seconds: float, with_python: bool) -> None:
    """Measure and print Markdown tables."""
    need("perf", "linux-perf")
    if with_python and shutil.which("py-spy") is None:
        raise click.ClickException("py-spy is not installed (pip install py-spy, in this environment)")
    with tempfile.TemporaryDirectory(prefix="fastq-profile-", dir="/var/tmp") as name:
        scratch = Path(name)
        load = Load(generator.build(scratch), connections, consumers, batch, seconds)
        for line in measured(scratch, load, with_python):
            click.echo(line)


if __name__ == "__main__":
    main()
