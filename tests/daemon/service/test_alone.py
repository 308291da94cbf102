"""A store without a daemon: what can be asked of it in the process that asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.config import Config
from daemon.contract import ExportInfo, MountSpec
from daemon.service import alone
from daemon.service.service import Service
from engine.errors import Unsupported
from tests.daemon.service.support import new_store


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    path = str(tmp_path / "store")
    new_store(path)
    with alone.service(path, Config(store=path)) as one:
        yield one
    one.state.close()


def test_jobs_run_to_their_end_where_they_are_started(service: Service) -> None:
    done = service.start_job("collect", {})
    assert (done.state, done.result["finished"]) == ("done", True)
    assert service.start_job("check", {"read_data": True}).result["problems"] == []


def test_what_needs_a_daemon_is_refused(service: Service) -> None:
    service.create_mount(MountSpec("m"))
    with pytest.raises(Unsupported, match="holdfast serve"):
        service.export(ExportInfo("m", "10.0.0.1"))
    assert service.exports("m") == []
    with pytest.raises(Unsupported):
        service.reload_config()
