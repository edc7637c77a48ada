"""The extension modules, and the console's htmx; everything else about the package is in pyproject.toml.

Every .pyx file below fastq/ is one extension module. FASTQ_SANITIZE=1 builds all of them with AddressSanitizer,
UndefinedBehaviorSanitizer, bounds checks and C assertions; `./dev asan` does that in a tree of its own.

htmx and its extension for server-sent events are copied from the django-htmx package, which is needed to build only.
"""

from __future__ import annotations

import os
import shutil
from glob import glob
from importlib.util import find_spec
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

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


SCRIPTS = {"htmx-2.min.js": "htmx.js", "ext/hx-sse-2.min.js": "sse.js"}


def copy_scripts() -> None:
    """Copy the console's scripts. A source distribution brings them along; then there is nothing to copy from."""
    target = Path("fastq/console/static")
    spec = find_spec("django_htmx")
    if spec is None or spec.origin is None:
        if missing := [name for name in SCRIPTS.values() if not (target / name).exists()]:
            raise SystemExit(f"{', '.join(missing)} is missing in {target}: install django-htmx, then build again")
        return
    target.mkdir(exist_ok=True)
    for source, name in SCRIPTS.items():
        shutil.copyfile(Path(spec.origin).parent / "static" / "django_htmx" / source, target / name)


class BuildPy(build_py):
    def run(self) -> None:
        copy_scripts()
        super().run()


class BuildExt(build_ext):
    """For a build in place, which has no build_py."""

    def run(self) -> None:
        copy_scripts()
        super().run()


setup(
    cmdclass={"build_py": BuildPy, "build_ext": BuildExt},
    ext_modules=cythonize(
        [extension(source) for source in sorted(glob("fastq/**/*.pyx", recursive=True))],
        compiler_directives=DIRECTIVES,
    ),
)
