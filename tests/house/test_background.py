"""The tests may run below nohup or in the background, where signals are ignored: programs do not inherit that."""

from __future__ import annotations

import subprocess
import sys

from tests.house.tree import ROOT

SIGNALS = "('SIGINT', 'SIGQUIT', 'SIGHUP', 'SIGTERM')"
IGNORED = (
    f"import signal; print([one for one in {SIGNALS} if signal.getsignal(getattr(signal, one)) is signal.SIG_IGN])"
)
STARTED = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {IGNORED!r}], check=True)"


def below_a_shell_that_ignores_signals(program: str) -> str:
    script = "trap '' INT QUIT HUP TERM; exec \"$@\""
    return subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def test_programs_that_tests_start_do_not_inherit_ignored_signals() -> None:
    assert below_a_shell_that_ignores_signals(STARTED) == "['SIGINT', 'SIGQUIT', 'SIGHUP', 'SIGTERM']\n"
    assert below_a_shell_that_ignores_signals(f"import tests.conftest; {STARTED}") == "[]\n"
