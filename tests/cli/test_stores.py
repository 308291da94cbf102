"""Stores that cannot be used as they are: newer, half made, in repair, with a torn index; and what mends them."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.support import (
    good,
    holdfast,
    new_store,
    noise,
    packs,
    refused,
    restored,
    snapshot,
    write,
)

COMMANDS = [
    ["points"], ["check"], ["stats"], ["gc"], ["repair"], ["repair", "--rebuild-index"], ["snapshot", "m"],
    ["create", "n"], ["rm", "0"], ["diff", "0", "1"], ["restore", "m@latest", "/nowhere/at/all"],
]  # fmt: skip
OF_THE_STATE = [["location", "list"], ["audit"]]  # what these tell is beside the store


def joined(value: object) -> str | None:
    return " ".join(value) if isinstance(value, list) else None


CONTENT = {
    b"random": noise(700_000, 1),
    b"text": b"the same line again and again\n" * 20_000,
    b"small": b"small",
    b"empty": b"",
}
LATER = {**CONTENT, b"later": noise(200_000, 2)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store; tests get copies."""
    return new_store(tmp_path_factory.mktemp("made") / "store")


@pytest.fixture(scope="module")
def grown(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A store with two points, of CONTENT and LATER; tests get copies."""
    store = shutil.copytree(made, tmp_path_factory.mktemp("grown") / "store")
    write(store, CONTENT)
    first = snapshot(store)
    write(store, {b"later": LATER[b"later"]})
    return store, [first, snapshot(store)]


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "store")


@pytest.fixture
def filled(grown: tuple[Path, list[str]], tmp_path: Path) -> tuple[Path, list[str]]:
    return shutil.copytree(grown[0], tmp_path / "store"), grown[1]


def record(store: Path) -> dict[str, bytes]:
    """Every file of a store, so that nothing of it can be lost unseen."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and path.name != "lock.mdb"  # LMDB's table of readers
    }


# --- format.json ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [*COMMANDS, *OF_THE_STATE], ids=joined)
def test_a_newer_format_is_touched_by_no_command(store: Path, command: list[str]) -> None:
    file = store / "format.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 3}))
    before = record(store)
    refused(holdfast(store, *command), 21, "format 3", "newer Holdfast", str(store))
    assert record(store) == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "17",
        '"format"',
        "\x00\x00\x00\x00",
        "\N{LATIN SMALL LETTER E WITH ACUTE}" * 3,
        '{"format": 1}',
        '{"format": "1", "store_id": "", "id_key": ""}',
        '{"format": 1, "store_id": 7, "id_key": 7}',
        json.dumps({"format": 1, "store_id": "z" * 32, "id_key": "z" * 64}),
        json.dumps({"format": True, "store_id": "0" * 32, "id_key": "0" * 64}),
        json.dumps({"format": 1, "store_id": ["0"] * 32, "id_key": ["0"] * 64}),
        json.dumps({"format": 0, "store_id": "0" * 32, "id_key": "0" * 64}),
        "[" * 60_000,
    ],
    ids=range(16),
)
def test_a_garbled_identity_is_said(store: Path, text: str) -> None:
    (store / "format.json").write_text(text, encoding="latin-1")
    before = record(store)
    refused(holdfast(store, "points"), 20, "format.json", "copy")
    assert record(store) == before


def test_an_identity_cut_short_and_put_back(filled: tuple[Path, list[str]], tmp_path: Path) -> None:
    store, points = filled
    whole = (store / "format.json").read_bytes()
    (store / "format.json").write_bytes(whole[: len(whole) // 2])
    before = record(store)
    refused(holdfast(store, "points"), 20, "format.json", "copy")
    refused(holdfast(store, "repair", "--rebuild-index"), 20, "format.json", "copy")
    assert record(store) == before
    (store / "format.json").write_bytes(whole)
    assert restored(store, points[0], tmp_path / "out") == CONTENT


def test_a_store_that_was_not_finished_is_none_and_can_be_begun_again(
    store: Path, tmp_path: Path
) -> None:
    (store / "format.json").unlink()
    (store / "lock").unlink()
    shutil.rmtree(store / "packs")
    refused(holdfast(store, "points"), 10, "holdfast init")
    good(holdfast(store, "init"))
    good(holdfast(store, "create", "fresh"))
    write(store, CONTENT, "fresh")
    assert restored(store, snapshot(store, "fresh"), tmp_path / "out") == CONTENT


@pytest.mark.parametrize("command", [*COMMANDS, *OF_THE_STATE], ids=joined)
def test_nothing_is_made_where_no_store_is(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "mine").mkdir()
    for path in (tmp_path / "mine", tmp_path / "none"):
        refused(holdfast(path, *command), 10, "holdfast init", str(path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert not list((tmp_path / "mine").iterdir())


def test_init_takes_nothing_that_has_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    refused(holdfast(tmp_path, "init"), 11, "empty or new directory")
    refused(holdfast(tmp_path / "mine", "init"), 11, "empty or new directory", "found a file")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine").read_text() == "kept"


# --- in use ---------------------------------------------------------------------------------------------------


@contextmanager
def held(store: Path, how: int) -> Iterator[None]:
    """Another process's lock on the store, for as long as the block runs."""
    with (store / "lock").open("r+b") as file:
        fcntl.flock(file, how | fcntl.LOCK_NB)
        yield


@pytest.mark.parametrize("command", COMMANDS, ids=joined)
def test_while_a_repair_works_every_command_is_refused(store: Path, command: list[str]) -> None:
    with held(store, fcntl.LOCK_EX):
        before = record(store)
        refused(holdfast(store, *command), 12, "store", str(store))
        assert record(store) == before
    good(holdfast(store, "points"))


def test_an_index_is_not_rebuilt_under_those_who_use_it(filled: tuple[Path, list[str]]) -> None:
    store, _ = filled
    with held(store, fcntl.LOCK_SH):
        before = record(store)
        refused(holdfast(store, "repair", "--rebuild-index"), 12, "unmount")
        assert record(store) == before
        good(holdfast(store, "points"))


# --- a torn index ---------------------------------------------------------------------------------------------


def cut_to_nothing(data: bytes) -> bytes:
    return b""


def cut_in_half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def cut_by_some_pages(data: bytes) -> bytes:
    """So many that some of them are in use: the last one may be free, and is then not missed."""
    return data[: -16 * 4096]


def zero_metas(data: bytes) -> bytes:
    return bytes(8192) + data[8192:]


def zero_rows(data: bytes) -> bytes:
    return data[:8192] + bytes(len(data) - 8192)


def garble_rows(data: bytes) -> bytes:
    return data[:8192] + noise(len(data) - 8192, 9)


@pytest.mark.parametrize(
    "tear", [cut_to_nothing, cut_in_half, cut_by_some_pages, zero_metas, zero_rows, garble_rows]
)
def test_a_torn_index_is_made_again_from_the_packs(
    filled: tuple[Path, list[str]], tmp_path: Path, tear: Callable[[bytes], bytes]
) -> None:
    store, points = filled
    listed = good(holdfast(store, "points", "--json"))
    kept = {path: path.read_bytes() for path in packs(store)}
    index = store / "index" / "data.mdb"
    torn = tear(index.read_bytes())
    index.write_bytes(torn)

    for command in (["points"], ["restore", points[0], str(tmp_path / "none")]):
        refused(holdfast(store, *command), 20, "index", "holdfast repair --rebuild-index")
    assert not (tmp_path / "none").exists()

    assert "2 points found" in good(holdfast(store, "repair", "--rebuild-index"))
    assert good(holdfast(store, "points", "--json")) == listed
    assert restored(store, points[0], tmp_path / "first") == CONTENT
    assert restored(store, points[1], tmp_path / "second") == LATER
    assert "no problems found" in good(holdfast(store, "check", "--read-data"))
    assert {path: path.read_bytes() for path in kept} == kept
    old = [path.read_bytes() for path in store.glob("quarantine/index-*/data.mdb")]
    assert old == [torn]  # set aside, not deleted


def test_an_index_that_is_gone_is_made_again_and_written_to_as_before(
    filled: tuple[Path, list[str]], tmp_path: Path
) -> None:
    store, points = filled
    shutil.rmtree(store / "index")
    refused(holdfast(store, "points"), 10, "index", "holdfast repair --rebuild-index")
    good(holdfast(store, "repair", "--rebuild-index"))
    change = {b"new": noise(100_000, 3), b"small": b"another"}
    write(store, change)
    third = snapshot(store)
    good(holdfast(store, "rm", points[0]))
    good(holdfast(store, "gc"))
    assert "no problems found" in good(holdfast(store, "check", "--read-data"))
    assert restored(store, third, tmp_path / "third") == {**LATER, **change}
    assert restored(store, points[1], tmp_path / "second") == LATER
