"""``holdfast adopt``: what it says, what it asks for, what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Store
from engine.copies.connect import Wanted, add
from engine.keys import Key, Passphrase
from tests.cli.support import good, holdfast, refused
from tests.keys.support import CHEAP
from tests.locations.places import KINDS, Place, laid

KEY = Key(bytes(range(32)))


@pytest.fixture(scope="module", params=KINDS)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    with laid(request.param, request, tmp_path_factory.mktemp("place") / "there") as one:
        yield one


@pytest.fixture(scope="module")
def url(place: Place, tmp_path_factory: pytest.TempPathFactory) -> str:
    base = tmp_path_factory.mktemp("adopt")
    Store.init(str(base / "store"))
    with Store.open(str(base / "store")) as store:
        store.create_mount("m")
        store.snapshot("m", "only")
        wanted = Wanted(place.url, [Passphrase("a word"), KEY])
        add(store._open.context, "far", wanted, cost=CHEAP).location.close()
        store.copies.send("far")
    return place.url


def secret(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_store_is_made_again(url: str, tmp_path: Path) -> None:
    words = secret(tmp_path / "words", "a word\n")
    said = good(holdfast(tmp_path / "new", "adopt", url, "--passphrase-file", str(words)))
    assert "1 point, 1 mount" in said and "fingerprint" in said and "not taken over" in said
    assert "only" in good(holdfast(tmp_path / "new", "points", "m"))
    key = secret(tmp_path / "key", KEY.printed())
    done = holdfast(
        tmp_path / "more", "adopt", url, "--key-file", str(key), "--take-over", "--json"
    )
    assert json.loads(good(done))["taken_over"]


def test_taking_over_later_and_freeing_there(url: str, tmp_path: Path) -> None:
    new, words = tmp_path / "new", secret(tmp_path / "words", "a word\n")
    good(holdfast(new, "adopt", url, "--passphrase-file", str(words)))
    good(holdfast(new, "snapshot", "m"))
    assert "adopted without taking over" in good(holdfast(new, "location", "list"))
    good(holdfast(new, "location", "take-over", "origin"))
    assert "1 point" in good(holdfast(new, "upload"))
    assert "0 packs" in good(holdfast(new, "location", "reclaim", "origin", "--dry-run"))
    good(holdfast(new, "rm", "m@latest"))
    good(holdfast(new, "gc"))
    assert "freed" in good(holdfast(new, "location", "reclaim", "origin"))
    freed = json.loads(good(holdfast(new, "location", "reclaim", "origin", "--json")))
    assert freed["packs"] == 0 and freed["done"]
    assert "no problems found" in good(holdfast(new, "check", "--read-data"))


def test_what_is_refused(url: str, place: Place, tmp_path: Path) -> None:
    new = tmp_path / "new"
    wrong = secret(tmp_path / "wrong", "another word")
    refused(holdfast(new, "adopt", url, "--passphrase-file", str(wrong)), 14, "opens none")
    public = secret(tmp_path / "public", "a word", 0o644)
    refused(holdfast(new, "adopt", url, "--passphrase-file", str(public)), 14, "chmod 600")
    refused(holdfast(new, "adopt", url), 2, "--passphrase-file, --key-file, or a terminal")
    refused(holdfast(new, "adopt", url, "--unsealed"), 2, "passphrase or key")
    refused(holdfast(new, "adopt", f"file://{tmp_path}", "--unsealed"), 10, "holdfast.json")
    place.gone()
    try:
        none = holdfast(new, "adopt", url, "--passphrase-file", str(wrong))
        assert none.returncode == 10 and re.search(place.absent, none.stderr)
    finally:
        place.back()
    assert not new.exists() and not (tmp_path / "new.adopting").exists()
