"""Cursors: what comes back is what was given, anything else is refused; pages of any tree are the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.contract import MountSpec
from daemon.service import cursors
from daemon.service.browse import BEGUN_MAX
from engine.errors import InvalidRequest
from tests.daemon.service.support import fill, new_store, served, settings


@given(st.text(), st.integers(-(2**63), 2**63 - 1))
def test_a_cursor_comes_back(text: str, number: int) -> None:
    made = cursors.encode("k", text, number)
    assert cursors.decode("k", made, str, int) == [text, number]
    for kind, types in (("other", (str, int)), ("k", (int, str)), ("k", (str,)), ("k", ())):
        with pytest.raises(InvalidRequest):
            cursors.decode(kind, made, *types)


@given(st.binary(max_size=2_500).map(lambda raw: raw.strip(b"/")), st.integers(0, 2**40))
def test_a_path_comes_back_if_it_is_short(path: bytes, place: int) -> None:
    made = cursors.encode_path("k", path, place)
    assert len(made) < cursors.LONGEST
    assert cursors.decode_path("k", made) == (path if len(path) <= cursors.PATH_MAX else b"", place)


@given(st.one_of(st.text(), st.text("abcdefgWyJ0_-=", max_size=60)))
def test_nothing_else_is_one(text: str) -> None:
    if text:
        with pytest.raises(InvalidRequest, match="cursor"):
            cursors.decode("k", text, str)


def test_pages_of_a_tree_with_long_paths_and_strange_names(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    new_store(path)
    deep = "/".join([letter * 250 for letter in "abcdefghij"])
    names = [deep + "/1", deep + "/2", deep, "a.b", "a/\x01", "a-", "\udcff/x", "z"]
    names = [name for name in names if name != deep]
    with served(path, settings(path)) as service:
        service.create_mount(MountSpec("m"))
        empty = service.snapshot("m").point.id
        fill(path, "m", {name: name[:50].encode("utf-8", "surrogateescape") for name in names})
        point = service.snapshot("m").point.id
        whole = service.manifest(point).items
        assert {one.path for one in whole} == set(names)
        for limit in (1, 2):
            found, cursor = [], ""
            while True:
                page = service.manifest(point, limit=limit, cursor=cursor)
                found += page.items
                cursor = page.cursor
                if not cursor:
                    break
            assert found == whole
        changes = service.diff(empty, point).items
        asked = [service.diff(empty, point, limit=3) for _ in range(BEGUN_MAX + 3)]
        for first in (asked[0], asked[0], asked[-1]):  # gone on with twice: the same again
            found_, cursor = list(first.items), first.cursor
            while cursor:
                page_ = service.diff(empty, point, limit=3, cursor=cursor)
                found_ += page_.items
                cursor = page_.cursor
            assert found_ == changes
        with pytest.raises(InvalidRequest, match="cursor"):
            service.manifest(empty, cursor=service.manifest(point, limit=1).cursor)
