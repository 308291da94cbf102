"""What kills a process that reads a damaged index, or one on a disk that fails, told as what it is.

LMDB reads its file through a map: a page number that leads behind the file's end, or a page the disk does not give, is
SIGBUS or SIGSEGV, a page that cannot be is SIGABRT.  ``check`` looks without LMDB and opening looks at the pages that
lead to the tables, but no command can look at all pages first (4 ms a MiB).  So these signals end the process with the
exit code of damage and one line that says what to do.  Nothing is written that was not asked to be: a transaction that
was open is never committed.
"""

from __future__ import annotations

import ctypes
import os
import signal

from engine.errors import Corrupt

_LINES = {
    int(number): (
        f"holdfast: stopped by {number.name}, which a damaged index causes, or a disk that does not give a page of it:"
        " run 'holdfast check', then 'holdfast repair --rebuild-index'\n"
    ).encode()
    for number in (signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT)
}  # made before: in the handler as little as can be is done


def _stopped(number: int) -> None:
    os.write(2, _LINES[number])
    os._exit(Corrupt.kind.exit)


_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)(
    _stopped
)  # kept: the process calls it as long as it lives


def install() -> None:
    """For this process, from now on. Python's own handlers run between instructions, of which there is no next one."""
    libc = ctypes.CDLL(None)
    for number in _LINES:
        libc.signal(number, _HANDLER)
