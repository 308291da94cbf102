"""Groups of files and their dictionaries: kept for those met of late, found again for the others."""

import random

import pytest

from engine import limits
from engine.codec import Bytes, compress
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
    monkeypatch.setattr(limits, "DICTIONARIES_KEPT", 3)
    session = opened.session
    groups = Groups(opened.context, session.writer, opened.reader)
    with session.writer.holds.open() as hold:
        names = [b"kind %d" % n for n in range(8)]
        made = [groups.get(name, of_one_kind(n), hold) for n, name in enumerate(names)]
        assert all(made)
        session.writer.commit()
        assert len(groups._groups) == 3
        again = [groups.get(name, [], hold) for name in names]
    assert [one and one.cid for one in again] == [one and one.cid for one in made]
    assert again[0] is not made[0]
    assert len(groups._groups) == 3


def test_data_that_gains_nothing_gets_no_dictionary(opened: OpenStore) -> None:
    session = opened.session
    groups = Groups(opened.context, session.writer, opened.reader)
    noise: list[Bytes] = [random.Random(n).randbytes(limits.SLOT) for n in range(17)]
    with session.writer.holds.open() as hold:
        assert groups.get(b"noise", noise, hold) is None
        assert groups.get(b"little", [text(3000, 1)], hold) is None


def test_a_group_of_several_kinds_of_data_has_a_dictionary_for_each(opened: OpenStore) -> None:
    session = opened.session
    groups = Groups(opened.context, session.writer, opened.reader)
    kinds = [of_one_kind(n) for n in range(3)]
    with session.writer.holds.open() as hold:
        for _ in range(4):
            for kind in kinds:
                groups.get(b"disk", kind, hold)
        session.writer.commit()
        again = Groups(opened.context, session.writer, opened.reader)
        for one in (groups, again):
            chosen = [one.get(b"disk", kind, hold) for kind in kinds]
            assert len({each.cid for each in chosen if each}) == 3
            for kind, each in zip(kinds, chosen, strict=True):
                assert each is not None
                assert len(each.digest.compress(kind[5])) < len(compress(kind[5])) / 2


def test_a_group_keeps_the_dictionaries_that_were_chosen_last(opened: OpenStore) -> None:
    session = opened.session
    groups = Groups(opened.context, session.writer, opened.reader)
    with session.writer.holds.open() as hold:
        for kind in range(3 * limits.DICTIONARIES_MAX):
            for _ in range(3):
                groups.get(b"disk", of_one_kind(kind), hold)
        (group,) = groups._groups.values()
        assert len(group.known) == limits.DICTIONARIES_MAX
        newest = of_one_kind(3 * limits.DICTIONARIES_MAX - 1)
        assert groups.get(b"disk", newest, hold) is group.known[0]
