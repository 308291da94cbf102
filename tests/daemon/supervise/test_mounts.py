"""Mounts of the configuration and of the store, made one: what was deleted by hand stays deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from click.testing import CliRunner

from daemon.cli.main import cli
from daemon.config import load
from daemon.contract import MountSpec
from daemon.supervise.mounts import Mounts
from daemon.supervise.settings import Settings
from daemon.supervise.workers import Workers
from tests.daemon.service.support import new_store, served

NAMED = "[mounts.m]\nstart = false\n"


async def test_a_mount_that_was_deleted_is_not_made_again(
    tmp_path: Path, expect_log: Callable[[str], None]
) -> None:
    store = str(tmp_path / "store")
    new_store(store)
    file = tmp_path / "holdfast.toml"

    def write(tables: str) -> None:
        file.write_text(f'store = "{store}"\nmount_root = "{tmp_path}"\n{tables}')
        file.chmod(0o600)

    def checked() -> str:
        return CliRunner().invoke(cli, ["config", "check", str(file)]).output

    write(NAMED)
    settings = Settings(str(file), load(str(file)))
    with served(store, settings()) as service:

        def begun() -> list[str]:
            """As a daemon that starts."""
            mounts = Mounts(settings)
            exports: Any = SimpleNamespace(active=False)
            mounts.open(service, Workers(store, mounts.spot, mounts), exports)
            mounts.prepare()
            settings.followers, settings.remarks = [mounts.follow], [mounts.remarks]
            return [one.name for one in service.store.mounts()]

        assert begun() == ["m"] and "was deleted" not in checked()
        service.delete_mount("m")
        expect_log("mounts.m: was deleted, and is not made again")
        assert begun() == []
        assert ["holdfast create m" in line for line in settings.reload()] == [True]
        assert begun() == [] and "mounts.m: was deleted" in checked()
        service.create_mount(MountSpec("m"))  # by hand
        assert begun() == ["m"] and settings.reload() == [] and "was deleted" not in checked()
        service.delete_mount("m")
        write("")
        assert not any("was deleted" in line for line in settings.reload())  # named no longer
        write(NAMED)
        settings.reload()
        assert begun() == ["m"]
