"""The service of this process, as a ``Backend``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.service.contract import BackendContract, Rig
from tests.daemon.service.support import new_store, served, settings


class TestService(BackendContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> Iterator[Rig]:
        path = str(tmp_path / "store")
        new_store(path)
        with served(path, settings(path)) as service:
            yield Rig(service, path)
