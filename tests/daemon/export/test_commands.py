"""export, exports and unexport: the commands, the service, and a real server behind them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import click
import pytest
from click.testing import CliRunner, Result

from daemon.cli import exports as commands
from daemon.cli import main
from daemon.contract import Backend
from daemon.export import GaneshaExports, Settings, Wanted
from daemon.service import Service
from engine import HoldfastError
from engine.errors import InvalidRequest, NotFound
from tests.daemon.export.conftest import Site, free_ports
from tests.daemon.service.support import served, settings

pytestmark = pytest.mark.needs_fuse


@pytest.fixture
def service(site: Site) -> Iterator[Service]:
    """A service of the site's store, with a server of its own."""
    found: list[Service] = []

    def wanted() -> list[Wanted]:
        (one,) = found
        known = {wanted.mount: wanted for wanted in site.wanted()}
        return [
            replace(known[mount.name], exports=tuple(one.wanted_exports(mount.name)))
            for mount in one.store.mounts()
        ]

    server = GaneshaExports(
        str(site.base / "nfs-commands"), Settings(port=free_ports(), grace_s=3), wanted
    )
    try:
        with served(site.store, settings(site.store), exports=server) as one:
            found.append(one)
            yield one
    finally:
        server.close()


@pytest.fixture
def run(service: Service, monkeypatch: pytest.MonkeyPatch) -> object:
    @contextmanager
    def backend(ctx: click.Context) -> Iterator[Backend]:
        yield service

    monkeypatch.setattr(commands, "backend", backend)

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(main.cli, words)

    return invoke


def test_the_commands(run, service: Service) -> None:  # type: ignore[no-untyped-def]
    done = run(
        "export", "db", "--client", "127.0.0.1", "--client", "192.0.2.0/24", "--squash", "none"
    )
    assert done.exit_code == 0, done.output
    assert done.output.count(": active\n") == 2
    listed = json.loads(run("exports", "db", "--json").output)
    assert {one["client"] for one in listed} == {"127.0.0.1/32", "192.0.2.0/24"}
    assert {one["state"] for one in listed} == {"active"}
    assert run("export", "db", "--client", "127.0.0.1", "--ro").exit_code == 0
    lines = run("exports").output.splitlines()
    assert len(lines) == 3
    assert "127.0.0.1/32  read   root    active" in lines[1]
    for client in ("127.0.0.1", "192.0.2.0/24"):
        assert run("unexport", "db", "--client", client).exit_code == 0
    assert len(run("exports").output.splitlines()) == 1
    assert isinstance(run("unexport", "db", "--client", "127.0.0.1").exception, NotFound)
    assert isinstance(run("export", "nothing", "--client", "127.0.0.1").exception, NotFound)
    assert isinstance(run("export", "db", "--client", "host.example").exception, InvalidRequest)
    assert run("export", "db").exit_code == 2


def test_an_export_that_fails_is_told(run, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("PATH", "")
    done = run("export", "db", "--client", "127.0.0.1")
    assert isinstance(done.exception, HoldfastError)
    assert "ganesha.nfsd" in str(done.exception)
    assert len(run("exports").output.splitlines()) == 1, "where it fails nothing has changed"
