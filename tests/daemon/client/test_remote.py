"""``Remote`` does what every ``Backend`` does: through a listener, to the service of a real store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.client import Remote
from tests.daemon.http.world import world
from tests.daemon.service.contract import BackendContract, Rig


class TestRemote(BackendContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> Iterator[Rig]:
        with world(tmp_path, clock=time.time_ns) as one, Remote(f"unix:{one.served.socket}") as far:
            yield Rig(far, one.path)
