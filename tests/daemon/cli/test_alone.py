"""A store without a daemon: as quick as before, and nothing beside it until something is to be kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.config import Config, Mount
from daemon.service import alone
from tests.cli.support import files, good, holdfast, new_store, refused, write
from tests.daemon.cli.support import command

HEAVY = (
    "httpx",
    "fastapi",
    "pydantic",
    "hypercorn",
    "starlette",
    "prometheus_client",
    "sqlite3",
    "rich",
    "trio",
)
SCRIPT = """
import sys
from daemon.cli.main import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["points"], ["snapshot", "m"], ["stats"], ["gc"]], ids=" ".join)
def test_nothing_is_imported_that_is_not_needed(tmp_path: Path, words: list[str]) -> None:
    store = new_store(tmp_path / "store")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "--store", store, *words],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stderr.split())
    assert not loaded & set(HEAVY)
    assert not any(
        name.startswith(("daemon.service", "daemon.http", "daemon.client")) for name in loaded
    )


def test_a_store_of_its_commands_alone_has_nothing_beside_it(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    write(store, {b"a": b"a"})
    point = good(holdfast(store, "snapshot", "m")).split()[-1]
    for words in (
        ["points"],
        ["diff", point, point],
        ["check"],
        ["rm", point],
        ["gc"],
        ["create", "n"],
        ["incidents"],
    ):
        good(holdfast(store, *words))
    assert not (store / "daemon").exists()


def test_a_session_without_a_daemon_and_what_is_kept_of_it(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    session = good(holdfast(store, "begin", "m", "--lease", "1h")).split()[-1]
    write(store, {b"a": b"a"})
    done = command("--store", store, "log", session, "-", "--name", "x.log", HOLDFAST_DEBUG="1")
    assert "x.log, 0 bytes" in good(done)
    point = good(holdfast(store, "commit", session)).split()[-1]
    assert json.loads(good(holdfast(store, "show", point, "--json")))["session"] == session
    good(holdfast(store, "snapshot", "m"))
    good(holdfast(store, "rm", point))
    acts = [one["act"] for one in json.loads(good(holdfast(store, "audit", "--json")))]
    assert acts == [
        "begin session",
        "attach log",
        "commit session",
        "take snapshot",
        "delete points",
    ]
    assert "5 lines" in good(holdfast(store, "audit", "--verify"))
    good(holdfast(store, "restore", "m@latest", str(tmp_path / "out")))
    assert files(tmp_path / "out") == {b"a": b"a"}


def test_a_changed_line_of_the_audit_log_is_found(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    for _ in range(3):
        good(holdfast(store, "token", "create", "--role", "auditor"))
    log = store / "daemon" / "audit.log"
    before = log.read_text()
    log.write_text(before.replace("auditor", "admin", 2))
    refused(holdfast(store, "audit", "--verify"), 20, "line 1")
    lines = before.splitlines(keepends=True)
    log.write_text(lines[0] + lines[2])
    refused(holdfast(store, "audit", "--verify"), 20, "line 2")


def test_what_only_a_daemon_can_do_says_so(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    refused(holdfast(store, "config", "reload"), 17, "holdfast serve")


def test_a_configuration_that_speaks_of_the_store_counts(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    config = tmp_path / "holdfast.toml"
    config.write_text(
        f'store = "{store}"\n[mounts.m.hooks.before_commit]\ncommand = ["/bin/false"]\n'
    )
    good(command("--store", store, "snapshot", "m"))
    done = command("--store", store, "snapshot", "m", HOLDFAST_CONFIG=str(config))
    assert done.returncode != 0 and "before_commit" in done.stderr
    config.write_text('store = "/another"\n')
    good(command("--store", store, "snapshot", "m", HOLDFAST_CONFIG=str(config)))


def test_what_nobody_wrote_is_the_defaults() -> None:
    said, meant = alone.Unsaid(), Mount()
    for name in Mount.model_fields:
        ours, default = getattr(said, name), getattr(meant, name)
        assert (
            dict(ours) if name == "hooks" else list(ours) if name == "exports" else ours
        ) == default
    assert said.squash_ids() == meant.squash_ids()
    unwritten, config = alone.Unwritten("/store"), Config(store="/store")
    for name in Config.model_fields:
        assert getattr(unwritten, name) == getattr(config, name)
    assert unwritten.mount_path("m") == config.mount_path("m")
