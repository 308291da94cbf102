"""One served store with a point, for a whole module of requests."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.daemon.http.world import World, world


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("w")) as found:
        found.fill("m")
        yield found


@pytest.fixture(scope="module")
def client(one: World) -> httpx.Client:
    return one.client()


@pytest.fixture(scope="module")
def point(one: World) -> str:
    return one.service.point("m@latest").point.id
