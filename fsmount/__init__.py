"""The FUSE worker: one process that serves one mount of a store. This is all that the layers above may use."""

from __future__ import annotations

from fsmount.lifecycle import serve, start_background, unmount
from fsmount.options import Options
from fsmount.remote import Client, client, incidents, request
from fsmount.unprivileged import become

__all__ = [
    "Client",
    "Options",
    "become",
    "client",
    "incidents",
    "request",
    "serve",
    "start_background",
    "unmount",
]
