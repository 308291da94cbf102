"""A process that is stopped while it has the write transaction, and one that waits for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from engine import limits
from engine.index import Index, Table
from tests.engine.process import ended, started


def test_a_process_stopped_while_it_writes_is_let_run_on(
    index: Index, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    monkeypatch.setattr(limits, "STALL_AFTER", 0.3)
    monkeypatch.setattr(limits, "TICK", 0.1)

    def stop_inside() -> None:
        other = Index(index.path)
        with other.write() as txn:
            txn.put(Table.META, b"of the stopped", b"1")
            os.kill(os.getpid(), signal.SIGSTOP)

    index.close()
    child = started(stop_inside)
    assert os.waitid(os.P_PID, child, os.WSTOPPED)
    expect_log(f"process {child} was stopped")
    mine = Index(index.path)
    with mine.write() as txn:
        assert txn.get(Table.META, b"of the stopped") == b"1"
        txn.put(Table.META, b"of the one that waited", b"2")
    mine.close()
    assert ended(child) == 0
