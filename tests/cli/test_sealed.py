"""A sealed store by its commands: made, opened in every way there is, its keys changed, checked without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine import supply
from tests.cli.support import good, holdfast, mounted, refused, unmounted
from tests.locations.places import Place


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Opened by the key that the environment names."""
    key = tmp_path / "store.key"
    good(holdfast(tmp_path / "store", "init", "--seal", "--new-key", str(key)))
    assert key.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv(supply.KEY_FILE, str(key))
    good(holdfast(tmp_path / "store", "create", "m"))
    return tmp_path / "store"


def test_made_with_secrets_only_when_sealed(tmp_path: Path) -> None:
    done = holdfast(tmp_path / "store", "init", "--new-key", str(tmp_path / "key"))
    assert done.returncode == 2 and "give --seal" in done.stderr
    assert not (tmp_path / "key").exists() and not (tmp_path / "store").exists()
    refused(holdfast(tmp_path / "store", "init", "--seal"), 2, "terminal")


def test_without_its_key_nothing_goes(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good(holdfast(store, "points"))
    monkeypatch.delenv(supply.KEY_FILE)
    for command in ("points", "gc", "check", "snapshot m", "repair --rebuild-index", "mounts"):
        refused(holdfast(store, *command.split()), 14, "sealed", "HOLDFAST_KEY_FILE")
    assert "as far as can be told" in good(holdfast(store, "check", "--without-key"))
    (tmp_path / "other.key").touch(0o600)
    (tmp_path / "other.key").write_bytes(b"o" * 32)
    monkeypatch.setenv(supply.KEY_FILE, str(tmp_path / "other.key"))
    refused(holdfast(store, "points"), 14, "opens none")


def test_by_the_configuration_that_speaks_of_it(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(supply.KEY_FILE)
    config = tmp_path / "holdfast.toml"
    config.write_text(f'store = "{store}"\nstore_key = "file:{tmp_path}/store.key"\n')
    monkeypatch.setenv("HOLDFAST_CONFIG", str(config))
    good(holdfast(store, "points"))


def test_its_keys_are_changed(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = str(tmp_path / "store.key")
    refused(holdfast(store, "key", "remove", ".", first(store)), 2, "1 to 16 slots")
    good(holdfast(store, "key", "add", ".", "--new", str(tmp_path / "second.key")))
    good(holdfast(store, "key", "rotate", "."))
    found = json.loads(good(holdfast(store, "key", "list", ".", "--json")))
    assert len(found["slots"]) == 2 and found["epochs"] == [1, 2] and found["ring"] == 3
    good(holdfast(store, "key", "remove", ".", found["slots"][0]["id"]))
    refused(holdfast(store, "points"), 14, "opens none")
    monkeypatch.setenv(supply.KEY_FILE, str(tmp_path / "second.key"))
    good(holdfast(store, "points"))
    again = good(holdfast(store, "key", "rotate", ".", "--master", "--key-file", key))
    assert "epoch 3" in again
    refused(holdfast(store, "points"), 14, "opens none")
    monkeypatch.setenv(supply.KEY_FILE, key)
    good(holdfast(store, "check", "--read-data"))
    assert "rotate keys" not in good(holdfast(store, "audit"))  # by whom there was no service yet
    good(holdfast(store, "key", "rotate", "."))
    assert "rotate keys" in good(holdfast(store, "audit"))


def first(store: Path) -> str:
    found = json.loads(good(holdfast(store, "key", "list", ".", "--json")))
    slot: str = found["slots"][0]["id"]
    return slot


def test_of_a_store_that_is_not_sealed(empty: Path) -> None:
    refused(holdfast(empty, "key", "list", "."), 2, "a sealed one")
    assert "no problems" in good(holdfast(empty, "check", "--without-key"))


def test_adopted_as_a_sealed_store(
    store: Path, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From what a sealed store has sent, which is sealed with the location's keys alone."""
    where, paper = place.url, str(tmp_path / "paper")
    good(holdfast(store, "location", "add", "far", where, "--recovery-key-out", paper))
    point = good(holdfast(store, "snapshot", "m")).split()[-1]
    good(holdfast(store, "upload"))
    monkeypatch.delenv(supply.KEY_FILE)
    new = tmp_path / "new"
    refused(holdfast(new, "adopt", where, "--key-file", paper, "--seal"), 2, "HOLDFAST_KEY_FILE")
    other = tmp_path / "other"
    other.touch(0o600)
    other.write_bytes(b"o" * 32)
    monkeypatch.setenv(supply.KEY_FILE, str(other))
    good(holdfast(new, "adopt", where, "--key-file", paper, "--seal", "--take-over"))
    assert point in good(holdfast(new, "points"))
    monkeypatch.delenv(supply.KEY_FILE)
    refused(holdfast(new, "points"), 14, "sealed")


@pytest.mark.needs_fuse
def test_its_worker_is_handed_the_key(store: Path, live: Path) -> None:
    where = mounted(store, "m", live)
    (where / "file").write_bytes(b"content" * 1000)
    good(holdfast(store, "snapshot", "m"))
    assert (where / "file").read_bytes() == b"content" * 1000
    unmounted(live)
    for path in store.rglob("*"):
        assert not path.is_file() or b"contentcontent" not in path.read_bytes(), path
