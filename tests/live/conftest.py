"""Fixtures: a live tree over chunks in memory, and one over either kind of chunks."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.rig import EngineRig, MemoryRig, Rig, SealedRig

KINDS: dict[str, type[Rig]] = {"memory": MemoryRig, "engine": EngineRig, "sealed": SealedRig}


@pytest.fixture
def rigs() -> Iterator[Callable[[Callable[[], Rig]], Rig]]:
    made: list[Rig] = []

    def keep(make: Callable[[], Rig]) -> Rig:
        made.append(make())
        return made[-1]

    yield keep
    for rig in made:
        rig.end()


@pytest.fixture(params=["memory", "engine"])
def rig(request: pytest.FixtureRequest, rigs: Any, tmp_path: Path) -> Rig:
    """The contract: what holds over memory holds over the engine; ``KINDS`` has one more, with a sealed store."""
    return rigs(lambda: KINDS[request.param](tmp_path))


@pytest.fixture
def memory(rigs: Any, tmp_path: Path) -> MemoryRig:
    """Over memory, where chunks can be made to fail."""
    return rigs(lambda: MemoryRig(tmp_path))
