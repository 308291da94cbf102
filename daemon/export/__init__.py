"""NFS: what NFS-Ganesha or the kernel's server is told, and its supervision. This is all that rooms above may use."""

from __future__ import annotations

from daemon.export.asked import AskedExports, connected, spawn
from daemon.export.ganesha import Settings
from daemon.export.kernel import KernelExports
from daemon.export.plan import Wanted, checked_path, network
from daemon.export.served import GaneshaExports

__all__ = [
    "AskedExports",
    "GaneshaExports",
    "KernelExports",
    "Settings",
    "Wanted",
    "checked_path",
    "connected",
    "network",
    "spawn",
]
