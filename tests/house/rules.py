"""The house rules. Each takes a file's path and text and yields a line for each violation.

Paths are relative to the checkout's root. A rule reads the syntax tree of Python files, so that strings and comments do
not count; it searches the text of Cython files.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from tests.house.layers import contracts, layer_rows

Rule = Callable[[str, str], Iterator[str]]

LINES_MAX = {".py": 450, ".pyi": 1000, ".pyx": 1000, ".pxi": 1000, ".pxd": 1000}
FUNCTION_LINES_MAX = 60
LINE_CHARS_MAX = 120
CODE_SUFFIXES = set(LINES_MAX)
CYTHON_SUFFIXES = {".pyx", ".pxi", ".pxd"}

NAMES_OF_NOTHING = {"base", "common", "helper", "helpers", "misc", "util", "utils"}

# The brackets keep these patterns from matching themselves.
UNFINISHED = re.compile(r"\b([T]ODO|[F]IXME|[X]XX|[N]otImplementedError)\b")
OUTSIDE = re.compile(r"/[w]ork/|\.\./[s]hared|\.[l]ibrary|\b[Ii]ssue #?\d")

CLOCK_HOME = "fastq/clock.py"
CLOCK_HOMES = {CLOCK_HOME, "fastq/_clock.pyx", "fastq/_clock.pxd"}
CLOCK_CALLS = {
    "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter", "time.perf_counter_ns",
    "time.process_time", "time.clock_gettime", "time.clock_gettime_ns", "datetime.now", "datetime.utcnow",
    "datetime.today", "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "date.today",
    "datetime.date.today", "loop.time", "self._loop.time",
}  # fmt: skip
CLOCK_IN_CYTHON = re.compile(r"\b(clock_gettime|gettimeofday|libc\.time|posix\.time|time_ns|monotonic|time\(NULL)\b")

ERROR_HOMES = (
    "fastq/errors/", "fastq/http/errors.py",  # of the server; of HTTP alone
    "fastq/client/errors.py", "fastq/cli/errors.py",  # of clients; of commands
)  # fmt: skip

STATUS_IN_CYTHON = re.compile(r"\b(status|status_code|headers)\b")

NOTICE_HOME = "fastq/cli/notices.py"

RANDOM_HOMES = {
    "fastq/chaos/plan.py", "fastq/chaos/target.py", "fastq/services/keys/records.py", "fastq/log/files/log.py",
    "fastq/client/randomness.py", "fastq/console/sessions.py", "fastq/server/run.py",
}  # fmt: skip
RANDOM_MODULES = {"random", "secrets"}
RANDOM_CALLS = {"os.urandom", "os.getrandom", "uuid.uuid1", "uuid.uuid4"}
RANDOM_IN_CYTHON = re.compile(r"\b(getrandom|arc4random|urandom|s?rand(om)?)\s*\(|\bimport (random|secrets)\b")

# Places where the process itself must know that a frame is durable, because it informs others than HTTP clients.
WAITS_FOR_THE_LOG = {
    "durable": (
        "fastq/engine/", "fastq/server/first_start.py", "fastq/server/offline.py", "fastq/server/run.py",
        "fastq/testing.py", "fastq/services/audit.py", "fastq/services/keys/redis_store.py", "fastq/log/",
    ),
    "visible": ("fastq/engine/commits.py", "fastq/http/output_commit.py", "fastq/http/event_streams.py"),
    "call_at": ("fastq/engine/commits.py", "fastq/http/lane/"),
    "log_caught_up": (  # work in slices, no faster than the disk
        "fastq/engine/", "fastq/services/audit.py", "fastq/services/bulk.py", "fastq/services/schedules.py",
    ),
}  # fmt: skip

# A layer may import lower layers only; leaves import only leaves.
LAYERS = [*(name for row in layer_rows() for name in row), "_core"]
BELOW_HTTP = ("fastq/errors/", "fastq/core/", *(f"fastq/{name}/" for name in LAYERS[LAYERS.index("http") + 1 :]))
LEAVES = {"_clock", *(name.removeprefix("fastq.") for name in contracts()["leaves"]["source_modules"])}
IMPURE = re.compile(
    r"^\s*(?:from|c?import)\s+(asyncio|datetime|libc\.time|os|posix|random|secrets|socket|threading|time)\b"
)
FASTQ_IMPORT = re.compile(
    r"^\s*(?:from\s+fastq\.(\w+)|c?import\s+fastq\.(\w+)|from\s+fastq\s+c?import\s+(\w+))", re.MULTILINE
)


def suffix_of(path: str) -> str:
    return PurePosixPath(path).suffix


@functools.cache
def parsed(text: str) -> ast.Module:
    """The syntax tree, made once for all rules."""
    return ast.parse(text)


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a chain of names, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f"{left}.{node.attr}"
    return ""


def calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every such name, called or only passed on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (name := dotted(node)):
            yield node.lineno, name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


# --- size and names ---------------------------------------------------------------------------------------------------


def file_fits(path: str, text: str) -> Iterator[str]:
    lines, most = text.count("\n"), LINES_MAX.get(suffix_of(path))
    if most is not None and lines > most:
        yield f"{path}: {lines} lines, more than {most}: split it by subject"


def lines_fit(path: str, text: str) -> Iterator[str]:
    if suffix_of(path) in CODE_SUFFIXES or path == "dev":
        for number, line in enumerate(text.splitlines(), 1):
            if len(line) > LINE_CHARS_MAX:
                yield f"{path}:{number}: {len(line)} characters, more than {LINE_CHARS_MAX}"


def functions_fit(path: str, text: str) -> Iterator[str]:
    if suffix_of(path) == ".py":
        found = python_functions(text)
    elif suffix_of(path) in CYTHON_SUFFIXES:
        found = cython_functions(text)
    else:
        return
    for line, name, length in found:
        if length > FUNCTION_LINES_MAX:
            yield f"{path}:{line}: {name} has {length} lines, more than {FUNCTION_LINES_MAX}"


def python_functions(text: str) -> Iterator[tuple[int, str, int]]:
    """(line, name, lines without the docstring) of each function."""
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node, clean=False) is not None:
                length -= (first.end_lineno or first.lineno) - first.lineno + 1
            yield node.lineno, node.name, length


CYTHON_FUNCTION = re.compile(r"^(\s*)(?:async\s+)?c?p?def\s(?!(?:class|struct|enum|union|extern)\b)[^=#]*?(\w+)\(")


def cython_functions(text: str) -> Iterator[tuple[int, str, int]]:
    """The same by indentation: a function ends before a line that is indented no further than its `def`."""
    lines = text.splitlines()
    for start, line in enumerate(lines):
        head = CYTHON_FUNCTION.match(line)
        if head is None:
            continue
        indent, last = len(head[1]), start
        for number in range(start + 1, len(lines)):
            inner = lines[number]
            if inner.strip() and not inner.lstrip().startswith((")", "#")):
                if len(inner) - len(inner.lstrip()) <= indent:
                    break
                last = number
        yield start + 1, head[2], last - start + 1


def name_says_something(path: str, text: str) -> Iterator[str]:
    parts = PurePosixPath(path).with_suffix("").parts
    if suffix_of(path) in CODE_SUFFIXES:
        for part in parts:
            if part.strip("_").removeprefix("test_") in NAMES_OF_NOTHING:
                yield f"{path}: {part!r} says nothing about what is in it"


# --- what must not be there -------------------------------------------------------------------------------------------


def finished(path: str, text: str) -> Iterator[str]:
    if suffix_of(path) in CODE_SUFFIXES or path == "dev":
        for number, line in enumerate(text.splitlines(), 1):
            if found := UNFINISHED.search(line):
                yield f"{path}:{number}: {found[0]}: do it now, or document why not"


def stands_alone(path: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        if found := OUTSIDE.search(line):
            yield f"{path}:{number}: {found[0]!r} is outside of this project"


def never_sleeps(path: str, text: str) -> Iterator[str]:
    if suffix_of(path) == ".py":
        for line, name in calls(parsed(text)):
            if name == "time.sleep":
                yield f"{path}:{line}: time.sleep: wait for the event itself"


def errors_have_a_home(path: str, text: str) -> Iterator[str]:
    if suffix_of(path) != ".py" or not path.startswith("fastq/") or path.startswith(ERROR_HOMES):
        return
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.ClassDef):
            for parent in node.bases:
                name = dotted(parent).rsplit(".", 1)[-1]
                if name.endswith(("Error", "Exception")):
                    yield f"{path}:{node.lineno}: {node.name} is an exception: they are defined in fastq/errors"


def statuses_have_a_home(path: str, text: str) -> Iterator[str]:
    """An error below HTTP does not know how it is answered."""
    if not path.startswith(BELOW_HTTP):
        return
    why = "an answer's status and headers are HTTP's: fastq/http/errors.py has them"
    if suffix_of(path) in CYTHON_SUFFIXES:
        yield from by_text(path, text, STATUS_IN_CYTHON, f": {why}")
    elif suffix_of(path) == ".py":
        for node in ast.walk(parsed(text)):
            names = {getattr(node, field, None) for field in ("id", "attr", "arg", "name")}
            if names & {"status", "status_code", "headers"}:
                yield f"{path}:{getattr(node, 'lineno', 0)}: {why}"


def notices_have_a_home(path: str, text: str) -> Iterator[str]:
    """A line on standard error overtakes the output that was printed before it, unless that is flushed first."""
    if suffix_of(path) != ".py" or not path.startswith("fastq/cli/") or path == NOTICE_HOME:
        return
    tree = parsed(text)
    to_stderr = [line for line, name in calls(tree) if name == "sys.stderr"]
    to_stderr += [
        node.lineno for node in ast.walk(tree)
        if isinstance(node, ast.Call) and any(keyword.arg == "err" for keyword in node.keywords)
    ]  # fmt: skip
    for line in to_stderr:
        yield f"{path}:{line}: writes to standard error: only {NOTICE_HOME} does, after a flush of standard output"


# --- time, chance, direction ------------------------------------------------------------------------------------------


def clock_has_a_home(path: str, text: str) -> Iterator[str]:
    if not path.startswith("fastq/") or path in CLOCK_HOMES:
        return
    if suffix_of(path) == ".py":
        for line, name in calls(parsed(text)):
            if name in CLOCK_CALLS:
                yield f"{path}:{line}: {name} reads a clock: only {CLOCK_HOME} does"
    elif suffix_of(path) in CYTHON_SUFFIXES:
        yield from by_text(path, text, CLOCK_IN_CYTHON, f"reads a clock: only {CLOCK_HOME} does")


def chance_has_homes(path: str, text: str) -> Iterator[str]:
    if not path.startswith("fastq/") or path in RANDOM_HOMES:
        return
    if suffix_of(path) == ".py":
        tree = parsed(text)
        for line, name in calls(tree):
            if name in RANDOM_CALLS or name.split(".")[0] in RANDOM_MODULES:
                yield f"{path}:{line}: {name} draws at random: it comes in from outside"
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name in RANDOM_MODULES:
                        yield f"{path}:{node.lineno}: {alias.name} draws at random: it comes in from outside"
    elif suffix_of(path) in CYTHON_SUFFIXES:
        yield from by_text(path, text, RANDOM_IN_CYTHON, "draws at random: it comes in from outside")


def durability_has_homes(path: str, text: str) -> Iterator[str]:
    """Only the places where answers leave may wait for the log, so that no new endpoint can get it wrong."""
    if not path.startswith("fastq/") or suffix_of(path) != ".py":
        return
    for node in ast.walk(parsed(text)):
        if not isinstance(node, ast.Attribute) or node.attr not in WAITS_FOR_THE_LOG:
            continue
        if not path.startswith(WAITS_FOR_THE_LOG[node.attr]):
            yield f"{path}:{node.lineno}: .{node.attr} waits for the log: answers do that where they leave"


def by_text(path: str, text: str, pattern: re.Pattern[str], what: str) -> Iterator[str]:
    """Lines whose part before a comment matches."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := pattern.search(line.split("#", 1)[0]):
            yield f"{path}:{number}: {found[0].strip()} {what}"


def cython_imports_go_down(path: str, text: str) -> Iterator[str]:
    """import-linter cannot see into Cython files."""
    if suffix_of(path) not in CYTHON_SUFFIXES or not path.startswith("fastq/"):
        return
    own = PurePosixPath(path).parts[1].split(".")[0]
    own = "_core" if own == "core" else own
    allowed = LEAVES if own in LEAVES else LEAVES | set(LAYERS[LAYERS.index(own) :])
    for found in FASTQ_IMPORT.finditer(text):
        name = found[1] or found[2] or found[3]
        if name not in allowed:
            line = text.count("\n", 0, found.start()) + 1
            yield f"{path}:{line}: {own} imports fastq.{name}, which is higher up"
    if own == "_core":
        yield from by_text(path, text, IMPURE, "in the core: it is pure, and nothing of the machine comes into it")


RULES: list[Rule] = [
    file_fits, lines_fit, functions_fit, name_says_something, finished, stands_alone, never_sleeps,
    errors_have_a_home, statuses_have_a_home, durability_has_homes, notices_have_a_home, clock_has_a_home,
    chance_has_homes, cython_imports_go_down,
]  # fmt: skip
