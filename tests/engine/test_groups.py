"""Groups of files and their dictionaries: kept for those met of late, found again for the others."""

import random

import pytest

from engine import limits
from engine.codec import Bytes
from engine.home import OpenStore
from engine.ingest.groups import Groups
from tests.engine.test_small import text


def of_one_kind(kind: int) -> list[Bytes]:
    """New data of a span, 64 KiB each, alike within its kind and not compressible without knowing that."""
    phrases = [random.Random(kind * 1000 + n).randbytes(200) for n in range(300)]
    rnd = random.Random(kind)
    return [b"".join(rnd.choice(phrases) for _ in range(328))[: limits.SLOT] for _ in range(17)]


def test_a_dictionary_put_aside_is_found_again(
    opened: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "GROUPS_MAX", 3)
    session = opened.session
    groups = Groups(opened.context, session.writer, opened.reader)
    with session.writer.holds.open() as hold:
        names = [b"kind %d" % n for n in range(8)]
        made = [groups.get(name, of_one_kind(n), hold) for n, name in enumerate(names)]
        assert all(group.dictionary for group in made)
        session.writer.commit()
        assert len(groups._groups) == 3
        again = [groups.get(name, [], hold) for name in names]
    assert [group.cid for group in again] == [group.cid for group in made]
    assert again[0] is not made[0]
    assert all(group.dictionary for group in again)
    assert len(groups._groups) == 3


def test_data_that_gains_nothing_gets_no_dictionary(opened: OpenStore) -> None:
    session = opened.session
    groups = Groups(opened.context, session.writer, opened.reader)
    noise: list[Bytes] = [random.Random(n).randbytes(limits.SLOT) for n in range(17)]
    with session.writer.holds.open() as hold:
        assert groups.get(b"noise", noise, hold).dictionary is None
        assert groups.get(b"little", [text(3000, 1)], hold).dictionary is None
