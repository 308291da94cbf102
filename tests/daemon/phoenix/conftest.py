"""A served API for each module, as good as new for each test."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from daemon.http import phoenix
from tests.daemon.phoenix.rig import Rig, listening


@pytest.fixture(scope="module")
def served() -> Iterator[Rig]:
    rig = Rig()
    app = phoenix.app(
        rig.memory, lambda: rig.settings, store_state=lambda: rig.store  # type: ignore[arg-type]
    )  # fmt: skip
    with listening(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        rig.client = client
        yield rig


@pytest.fixture
def rig(served: Rig) -> Rig:
    fresh = Rig()
    served.memory.__dict__.update(fresh.memory.__dict__)
    served.settings, served.store = fresh.settings, fresh.store
    return served
