"""The native API, by subject; ``app`` makes the application of it."""

from __future__ import annotations

from daemon.http.native.app import Application, app

__all__ = ["Application", "app"]
