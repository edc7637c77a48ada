"""The house rules hold in every file of the project, and each rule finds its violation."""

from __future__ import annotations

import pytest

from tests.house import rules
from tests.house.tree import text_files

FILES = list(text_files())


def test_the_rules_find_files_to_check() -> None:
    paths = {path for path, _ in FILES}
    assert {"dev", "pyproject.toml", "fastq/errors/__init__.py", "fastq/_core.pyx", "tests/house/rules.py"} <= paths
    assert not any(path.startswith((".venv", ".git/", "build/")) for path in paths)


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_rule_holds(rule: rules.Rule) -> None:
    found = [line for path, text in FILES for line in rule(path, text)]
    assert not found, "\n" + "\n".join(found)


def function_of(lines: int, head: str = "def long():") -> str:
    return head + "\n" + "    x = 1\n" * (lines - 1)


# Assembled from parts, so that the rules find nothing in this file.
WORD = "".join(("TO", "DO"))
PLACE = "/".join(("", "work", "notes"))

# (rule, path, text that breaks it)
PLANTED = [
    (rules.file_fits, "fastq/a.py", "x = 1\n" * 451),
    (rules.file_fits, "fastq/core/a.pxi", "x = 1\n" * 1001),
    (rules.lines_fit, "fastq/a.py", "#" * 121),
    (rules.lines_fit, "fastq/core/a.pxi", "#" * 121),
    (rules.functions_fit, "fastq/a.py", function_of(61)),
    (rules.functions_fit, "fastq/a.py", "class A:\n" + "    async def f(self):\n" + "        x = 1\n" * 60),
    (rules.functions_fit, "fastq/a.pyx", function_of(61, "cdef int long() except -1:")),
    (rules.functions_fit, "fastq/a.pyx", function_of(61, "cdef (int, long) long(\n    int a,\n) nogil:")),
    (rules.functions_fit, "fastq/a.pyx", "cdef class A:\n    cpdef f(self):\n" + "        x = 1\n\n" * 31),
    (rules.name_says_something, "fastq/utils.py", ""),
    (rules.name_says_something, "fastq/http/base.py", ""),
    (rules.name_says_something, "tests/helpers/jobs.py", ""),
    (rules.finished, "fastq/a.py", f"x = 1  # {WORD}: more\n"),
    (rules.finished, "fastq/core/a.pxi", f"raise {'NotImplemented'}Error"),
    (rules.stands_alone, "docs/a.md", f"see {PLACE}"),
    (rules.stands_alone, "README.md", f"as {'issue'} 7 asks"),
    (rules.never_sleeps, "tests/test_a.py", "import time\ntime.sleep(1)\n"),
    (rules.never_sleeps, "tests/test_a.py", "from time import sleep\n"),
    (rules.errors_have_a_home, "fastq/http/a.py", "class Odd(ValueError): ...\n"),
    (rules.errors_have_a_home, "fastq/http/a.py", "import falcon\nclass Odd(falcon.HTTPError): ...\n"),
    (rules.statuses_have_a_home, "fastq/errors/a.py", "class Full:\n    status = 429\n"),
    (rules.statuses_have_a_home, "fastq/services/a.py", "log(error.status)\n"),
    (rules.statuses_have_a_home, "fastq/engine/a.py", "def headers(self): ...\n"),
    (rules.statuses_have_a_home, "fastq/core/a.pxi", "cdef int status = 404\n"),
    (rules.notices_have_a_home, "fastq/cli/a.py", "import sys\nprint('late', file=sys.stderr)\n"),
    (rules.notices_have_a_home, "fastq/cli/a.py", "import click\nclick.echo('late', err=True)\n"),
    (rules.durability_has_homes, "fastq/http/resources/a.py", "async def f(self):\n    await self._engine.durable()\n"),
    (rules.durability_has_homes, "fastq/services/a.py", "wait = engine.durable\n"),
    (rules.durability_has_homes, "fastq/http/app.py", "wait = commits.visible\n"),
    (rules.durability_has_homes, "fastq/services/a.py", "self._engine.commits.call_at(seq, done)\n"),
    (rules.durability_has_homes, "fastq/http/resources/a.py", "wait = self._engine.log_caught_up\n"),
    (rules.clock_has_a_home, "fastq/engine.py", "import time\nx = time.monotonic()\n"),
    (rules.clock_has_a_home, "fastq/engine.py", "import time\nf(clock=time.time_ns)\n"),
    (rules.clock_has_a_home, "fastq/engine.py", "from time import perf_counter\n"),
    (rules.clock_has_a_home, "fastq/engine.py", "from datetime import datetime\ndatetime.now()\n"),
    (rules.clock_has_a_home, "fastq/engine.py", "import datetime\ndatetime.datetime.now(tz)\n"),
    (rules.clock_has_a_home, "fastq/core/a.pxi", "from libc.time cimport time\n"),
    (rules.clock_has_a_home, "fastq/log/a.pyx", "clock_gettime(0, &t)\n"),
    (rules.chance_has_homes, "fastq/http/a.py", "import random\n"),
    (rules.chance_has_homes, "fastq/http/a.py", "from secrets import token_hex\n"),
    (rules.chance_has_homes, "fastq/http/a.py", "import os\nos.urandom(16)\n"),
    (rules.chance_has_homes, "fastq/http/a.py", "import uuid\nuuid.uuid4()\n"),
    (rules.chance_has_homes, "fastq/core/a.pxi", "x = rand()\n"),
    (rules.cython_imports_go_down, "fastq/core/a.pxi", "from fastq.engine import Engine\n"),
    (rules.cython_imports_go_down, "fastq/_core.pyx", "import os\n"),
    (rules.cython_imports_go_down, "fastq/_core.pyx", "from posix.unistd cimport write\n"),
    (rules.cython_imports_go_down, "fastq/log/_a.pyx", "from fastq cimport _core\nfrom fastq import http\n"),
    (rules.cython_imports_go_down, "fastq/log/_a.pyx", "import fastq.services.keys\n"),
]


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED)
def test_rule_catches(rule: rules.Rule, path: str, text: str) -> None:
    assert len(list(rule(path, text))) == 1


def test_every_rule_has_a_planted_violation() -> None:
    assert {rule for rule, _, _ in PLANTED} == set(rules.RULES)


# (rule, path, text that looks like a violation and is none)
ALLOWED = [
    (rules.file_fits, "fastq/a.py", "x = 1\n" * 450),
    (rules.file_fits, "requirements/dev.txt", "x\n" * 2000),
    (rules.functions_fit, "fastq/a.py", function_of(60)),
    (rules.functions_fit, "fastq/a.py", 'def f():\n    """' + "\n" * 50 + '"""\n' + "    x = 1\n" * 55),
    (rules.functions_fit, "fastq/a.pyx", function_of(60, "cdef int f():") + function_of(60, "cdef int g():")),
    (rules.functions_fit, "fastq/a.pyx", "cdef struct Job:\n" + "    int x\n" * 100),
    (rules.never_sleeps, "fastq/a.py", 'x = "time.sleep"  # never time.sleep\n'),
    (rules.durability_has_homes, "fastq/services/bulk.py", "wait = engine.log_caught_up\n"),
    (rules.durability_has_homes, "fastq/http/output_commit.py", "wait = commits.visible\n"),
    (rules.clock_has_a_home, "fastq/clock.py", "import time\ntime.time()\n"),
    (rules.clock_has_a_home, "tests/test_a.py", "import time\ntime.time()\n"),
    (rules.clock_has_a_home, "fastq/core/a.pxi", "# nobody calls clock_gettime here\n"),
    (rules.errors_have_a_home, "fastq/http/errors.py", "class Odd(ApiError): ...\n"),
    (rules.statuses_have_a_home, "fastq/http/errors.py", "status = 429\n"),
    (rules.chance_has_homes, "fastq/services/keys/records.py", "import secrets\n"),
    (rules.chance_has_homes, "fastq/http/a.py", "import uuid\nuuid.UUID(x)\n"),
    (rules.cython_imports_go_down, "fastq/log/_a.pyx", "from fastq._core cimport Batch\nimport fastq.errors\n"),
    (rules.cython_imports_go_down, "fastq/_core.pyx", "from libc.stdint cimport int64_t\n"),
]


@pytest.mark.parametrize(("rule", "path", "text"), ALLOWED)
def test_rule_lets_pass(rule: rules.Rule, path: str, text: str) -> None:
    assert list(rule(path, text)) == []
