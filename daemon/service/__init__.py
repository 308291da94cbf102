"""The service: every request about a store answered in this process, with what ``Ports`` do for it."""

from __future__ import annotations

from daemon.service.ports import Ports
from daemon.service.service import Service

__all__ = ["Ports", "Service"]
