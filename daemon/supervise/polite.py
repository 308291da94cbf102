"""Maintenance gives way: its processes get the processor and the disk that nobody else wants."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform

NICE = 10
_IDLE = 3 << 13  # class of I/O priority; where the disk's scheduler knows none, it has no effect
_SYSCALL = {"x86_64": 251, "aarch64": 30, "riscv64": 30}.get(platform.machine())
_libc = ctypes.CDLL(None, use_errno=True)


def give_way(pid: int) -> None:
    """A process that has just begun, and so has one thread: those it starts inherit. Best effort."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, max(NICE, os.getpriority(os.PRIO_PROCESS, pid)))
    if _SYSCALL is not None:
        _libc.syscall(_SYSCALL, 1, pid, _IDLE)
