"""The command ``key``: beside a store, and through a daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from daemon.cli.main import cli
from engine.errors import HoldfastError
from engine.keys import Identity, Key, Recipient, load, parse
from tests.cli.support import new_store
from tests.daemon.cli.support import Served
from tests.locations.places import Place

WORDS = "two words é"
Run = Callable[..., Result]


def runner(*where: str | Path) -> Run:
    """Runs a command in this process; ``code``: what it is to end with, ``given``: on standard input."""

    def run(*words: str | Path, code: int = 0, given: str = "") -> Result:
        told = [str(word) for word in (*where, *words)]
        done = CliRunner().invoke(cli, told, input=given, standalone_mode=False)
        found = done.exception.kind.exit if isinstance(done.exception, HoldfastError) else 0
        assert isinstance(done.exception, HoldfastError | None), done.exception
        assert found == code, done.exception or done.output
        return done

    return run


@pytest.fixture(params=["beside the store", "through the daemon"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    if request.param == "beside the store":
        return runner("--store", new_store(tmp_path / "store"))
    served: Served = request.getfixturevalue("served")
    return runner("--api", served.api, "--token-file", served.token)


@pytest.mark.seldom
def test_keys_of_a_location(run: Run, place: Place, tmp_path: Path) -> None:
    paper, safe, new = tmp_path / "paper", tmp_path / "safe", tmp_path / "new"
    run(
        "location",
        "add",
        "far",
        place.url,
        "--credentials",
        place.source(tmp_path),
        "--recovery-key-out",
        paper,
    )
    try:
        _by_its_commands(run, paper, safe, new)
    finally:
        run("location", "remove", "far")


def _by_its_commands(run: Run, paper: Path, safe: Path, new: Path) -> None:
    def told(*words: str | Path, **options: Any) -> Any:
        return json.loads(run(*words, "--json", **options).stdout)

    heads, *rows, last = run("key", "list", "far").stdout.splitlines()
    assert heads.split() == ["SLOT", "KIND", "MADE"] and len(rows) == 2
    assert rows[1].endswith("this store's own") and last.startswith("key ring 1, 1 epoch, fingerp")
    public = run("key", "identity", safe).stdout
    assert isinstance(parse(public), Recipient) and isinstance(load(str(safe)), Identity)
    assert safe.stat().st_mode & 0o777 == 0o600
    assert run("key", "identity", safe, "--recipient").stdout == public
    run("key", "identity", safe, code=11)
    made = run("key", "add", "far", "--new", new, "--recipient", public.strip())
    assert made.stdout.startswith("location far: 4 slots in key ring 2, fingerprint ")
    assert isinstance(load(str(new)), Key) and new.read_text().strip() not in made.output
    run("key", "add", "far", "--new", new, code=11)
    run("key", "add", "far", "--recipient", load(str(new)).printed(), code=2)
    shown = run("key", "add", "far", "--new", "-").stdout.splitlines()
    assert isinstance(parse(shown[1]), Key) and len(shown) == 2
    run("key", "change", "far", "--passphrase-file", "-", code=2, given=WORDS)  # there is none
    run("key", "add", "far", "--passphrase-file", "-", given=f"{WORDS}\n")
    slots = told("key", "list", "far")["slots"]
    kinds = ["recipient", "key", "recipient", "key", "key", "passphrase"]
    assert [one["kind"] for one in slots] == kinds
    run("key", "change", "far", "--key-file", new, "--slot", slots[4]["id"])
    changed = told("key", "change", "far", "--key-file", new)  # the only passphrase
    assert "passphrase" not in [one["kind"] for one in changed["slots"]]
    run("key", "remove", "far", slots[1]["id"], code=2)
    rest = [one["id"] for one in changed["slots"] if not one["own"]]
    run("key", "remove", "far", *rest, code=2)
    gone = run("key", "remove", "far", slots[1]["id"], "--force")
    assert "this store's own key does not open it" in gone.stderr
    run("key", "list", "far", code=14)
    run("key", "add", "far", "--own", "--with-key-file", paper)
    assert "epoch 2 from the next pack on" in run("key", "rotate", "far").stdout
    turned = run("key", "rotate", "far", "--master", "--key-file", safe, "--with-key-file", new)
    assert "2 slots" in turned.stdout and "open it no longer" in turned.stderr
    run("key", "rotate", "far", "--with-key-file", new, code=14)
    assert told("key", "rotate", "far", "--with-key-file", safe)["epochs"] == [1, 2, 3, 4]
    run("key", "add", "far", code=2)  # no terminal to ask at
    run("key", "list", "near", code=10)


def test_nothing_secret_is_an_argument() -> None:
    group = cli.get_command(None, "key")  # type: ignore[arg-type]
    for command in group.commands.values():  # type: ignore[union-attr]
        for one in command.params:
            assert one.name not in ("passphrase", "key", "identity", "secret")
