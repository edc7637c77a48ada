"""The extension modules; everything else about the package is in pyproject.toml.

Every .pyx file below fastq/ is one extension module. FASTQ_SANITIZE=1 builds all of them with AddressSanitizer,
UndefinedBehaviorSanitizer, bounds checks and C assertions; `./dev asan` does that in a tree of its own.
"""

from __future__ import annotations

import os
from glob import glob
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

SANITIZE = os.environ.get("FASTQ_SANITIZE") == "1"

# -O2 comes last and so wins over what the interpreter was built with. No -m flags: code for one kind of processor is
# chosen when it runs, so that a wheel works on every x86-64. No debugging information, which costs a third of the
# build's time and most of a wheel's size; the names of functions stay, for perf and callgrind.
COMPILE = ["-O2", "-g0", "-pthread", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]
LINK = ["-pthread"]
if SANITIZE:
    SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
    COMPILE += [*SANITIZERS, "-g", "-O1", "-UNDEBUG"]
    LINK += SANITIZERS

DIRECTIVES = {
    "language_level": 3,
    "auto_pickle": False,
    "autotestdict": False,
    "binding": True,
    "boundscheck": SANITIZE,
    "wraparound": False,
    "cdivision": True,
}


def extension(source: str) -> Extension:
    """The module of one .pyx file, which is built again when it or any .pxd, .pxi or .h changes."""
    path = Path(source)
    return Extension(
        ".".join(path.with_suffix("").parts),
        [source],
        depends=[file for kind in ("pxd", "pxi", "h") for file in glob(f"fastq/**/*.{kind}", recursive=True)],
        extra_compile_args=COMPILE,
        extra_link_args=LINK,
    )


setup(
    ext_modules=cythonize(
        [extension(source) for source in sorted(glob("fastq/**/*.pyx", recursive=True))],
        compiler_directives=DIRECTIVES,
    )
)
