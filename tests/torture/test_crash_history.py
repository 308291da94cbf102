"""States of a tree that look alike but for the content of files."""

from __future__ import annotations

from tools.torture.history import History, Op, Seen


def test_two_files_that_changed_places_are_found_in_either() -> None:
    history = History()
    for op in (
        Op("create", b"a", number=0o600),
        Op("create", b"b", number=0o600),
        Op("write", b"a", data=b"one"),
        Op("write", b"b", data=b"other"),
        Op("fsync", b"a"),
        Op("fsync", b"b"),
        Op("rename", b"a", b"b", 2),
    ):
        history.begin(op)
        history.done(op)
    meta = history.now.metas[1]

    def found(first: bytes, second: bytes) -> dict[bytes, Seen]:
        return {b"a": Seen(meta, 1, first), b"b": Seen(meta, 2, second)}

    assert history.picture().misfit(found(b"one", b"other")) == ""
    assert history.picture().misfit(found(b"other", b"one")) == ""
    assert history.picture().misfit(found(b"other", b"other")) == "b'b': size 5, expected 3 to 3"
    assert history.picture(floor=7).misfit(found(b"one", b"other")) != ""
