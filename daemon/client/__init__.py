"""``Remote``: the ``Backend`` of another process or machine, over the native API."""

from __future__ import annotations

from daemon.client.remote import Remote

__all__ = ["Remote"]
