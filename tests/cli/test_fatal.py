"""A signal that reading a damaged index raises ends a command with the exit code of damage and says what to do."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest


@pytest.mark.parametrize("number", [signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT])
def test_the_signals_of_a_damaged_index_become_an_exit_code(number: signal.Signals) -> None:
    program = f"import os; from daemon.cli import fatal; fatal.install(); os.kill(os.getpid(), {int(number)})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 20
    assert number.name in done.stderr and "rebuild-index" in done.stderr
    assert len(done.stderr.splitlines()) == 1
