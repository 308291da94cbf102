"""The FUSE worker: one process that serves one mount of a store. This is all that the layers above may use."""

from __future__ import annotations

from fsmount.control import Client
from fsmount.lifecycle import client, request, serve, start_background, unmount
from fsmount.options import Options

__all__ = ["Client", "Options", "client", "request", "serve", "start_background", "unmount"]
