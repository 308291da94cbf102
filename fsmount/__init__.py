"""The FUSE worker: one process that serves one mount of a store. This is all that the layers above may use."""

from __future__ import annotations

from fsmount.lifecycle import serve, start_background, unmount
from fsmount.mountpoint import mounted_at
from fsmount.options import Options
from fsmount.remote import Client, client, incidents, request
from fsmount.unprivileged import become

__all__ = [
    "Client",
    "Options",
    "become",
    "client",
    "incidents",
    "mounted_at",
    "request",
    "serve",
    "start_background",
    "unmount",
]
