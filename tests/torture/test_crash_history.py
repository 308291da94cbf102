"""What a fsync promises about names."""

from __future__ import annotations

from tools.torture.history import History, Op


def test_a_fsync_settles_names_up_to_the_last_change_of_its_file() -> None:
    history = History()
    for op in (Op("create", b"a"), Op("fsync", b"a"), Op("mkdir", b"b")):
        history.begin(op)
        history.done(op)
    assert history.durable == 1
    for op, durable in (
        (Op("fsync", b"a"), 1),  # nothing changed in it: it may return without a commit
        (Op("write", b"a", data=b"x"), 1),
        (Op("mkdir", b"c"), 1),
        (Op("fsync", b"a"), 5),
        (Op("rename", b"a", b"d"), 5),
        (Op("fsync", b"d"), 8),
        (Op("fsyncdir", b"c"), 10),
    ):
        history.begin(op)
        history.done(op)
        assert history.durable == durable, op
