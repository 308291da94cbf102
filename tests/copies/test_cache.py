"""The cache of what was fetched: never wrong, never too large, and worth having."""

from __future__ import annotations

import os
import random
import shutil
import threading
from pathlib import Path

import pytest

from engine import limits
from engine.copies.cache import Away, BlockCache
from engine.errors import Corrupt, LocationUnavailable
from engine.seam import REAL
from tests.locations.faulty import Fail, Faulty
from tests.locations.places import Place

MIB = 1 << 20
DATA = random.Random(1).randbytes(5 * MIB + 12_345)


@pytest.fixture
def away(place: Place) -> Away:
    location = Faulty(place.location())
    location.put("packs/aa/pack", DATA)
    return Away(location, "packs/aa/pack", len(DATA))


def cache(tmp_path: Path, most: int = 64 * MIB) -> BlockCache:
    return BlockCache(str(tmp_path / "cache"), most, REAL)


def fetches(away: Away) -> int:
    assert isinstance(away.location, Faulty)
    return sum(operation == "ranges" for operation, _ in away.location.calls)


def test_any_parts_are_those_of_the_pack(tmp_path: Path, away: Away) -> None:
    one = cache(tmp_path)
    chance = random.Random(2)
    for _ in range(60):
        parts = []
        for _ in range(chance.randrange(1, 4)):
            offset = chance.randrange(len(DATA))
            parts.append(
                (offset, chance.randrange(len(DATA) - offset + 1) // chance.choice((1, 50)))
            )
        found = one.ranges(away, parts)
        assert found == [DATA[offset : offset + length] for offset, length in parts]
    assert fetches(away) <= 6
    before = fetches(away)
    assert cache(tmp_path).ranges(away, [(0, len(DATA))]) == [DATA]
    assert fetches(away) == before  # what another process left is used
    for part in ((len(DATA), 1), (-1, 5), (0, len(DATA) + 1)):
        with pytest.raises(Corrupt):
            one.ranges(away, [part])


@pytest.mark.seldom
def test_what_passes_is_not_kept_and_what_is_kept_is_used(tmp_path: Path, away: Away) -> None:
    one = cache(tmp_path)
    parts = [(5, 50), (3 * MIB, 70_000), (MIB, 600_000), (4 * MIB, 0)]
    expected = [DATA[offset : offset + length] for offset, length in parts]
    assert one.passing(away, parts) == expected and one.passing(away, []) == []
    assert not (tmp_path / "cache").exists() and one.fetched_bytes == 0
    one.ranges(away, [(MIB, 300_000)])  # a part of one of them, and two blocks
    assert one.passing(away, parts) == expected
    one.ahead(away, parts)
    before = fetches(away)
    assert one.passing(away, parts) == expected and fetches(away) == before
    with pytest.raises(Corrupt):
        one.passing(away, [(len(DATA) - 5, 6)])


@pytest.mark.seldom
def test_what_is_read_in_order_is_fetched_ahead(tmp_path: Path, away: Away) -> None:
    one = cache(tmp_path)
    for at in range(0, len(DATA) - 100_000, 100_000):
        assert one.ranges(away, [(at, 100_000)]) == [DATA[at : at + 100_000]]
    assert fetches(away) <= 6


@pytest.mark.seldom
def test_a_folder_that_is_removed_is_made_again(tmp_path: Path, away: Away) -> None:
    one = cache(tmp_path)
    for _ in range(2):
        before = fetches(away)
        for _ in range(2):
            assert one.ranges(away, [(0, MIB)]) == [DATA[:MIB]]
        assert fetches(away) == before + 1  # once, and then it is kept
        shutil.rmtree(tmp_path / "cache")


@pytest.mark.seldom
def test_it_stays_within_its_bound(tmp_path: Path, away: Away) -> None:
    most = 3 * MIB
    one = cache(tmp_path, most)
    chance = random.Random(3)
    for _ in range(200):
        offset = chance.randrange(len(DATA) - 10)
        assert one.ranges(away, [(offset, 10)]) == [DATA[offset : offset + 10]]
        held = sum(entry.stat().st_size for entry in os.scandir(tmp_path / "cache"))
        assert held <= most


@pytest.mark.seldom
def test_blocks_that_are_torn_or_gone_are_fetched_again(tmp_path: Path, away: Away) -> None:
    one = cache(tmp_path)
    one.ranges(away, [(0, len(DATA))])
    for number, path in enumerate(sorted((tmp_path / "cache").iterdir())):
        path.unlink() if number % 2 else path.write_bytes(b"torn")
    assert one.ranges(away, [(0, len(DATA))]) == [DATA]
    one.drop(away, 0, len(DATA))
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.seldom
def test_a_cache_that_cannot_be_written_is_only_slow(tmp_path: Path, away: Away) -> None:
    (tmp_path / "cache").write_text("in the way")
    assert cache(tmp_path).ranges(away, [(5, 50)]) == [DATA[5:55]]


@pytest.mark.seldom
def test_an_absent_location_is_told_and_what_is_here_is_had(tmp_path: Path, away: Away) -> None:
    assert isinstance(away.location, Faulty)
    one = cache(tmp_path)
    one.ranges(away, [(0, 10)])
    away.location.on("ranges", Fail(LocationUnavailable("a server")), times=-1)
    assert one.ranges(away, [(100, 10)]) == [DATA[100:110]]
    with pytest.raises(LocationUnavailable):
        one.ranges(away, [(4 * MIB, 10)])


@pytest.mark.seldom
def test_many_at_once(tmp_path: Path, away: Away) -> None:
    one = cache(tmp_path, 4 * MIB)
    wrong = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(50):
            offset = chance.randrange(len(DATA) - 5000)
            if one.ranges(away, [(offset, 5000)]) != [DATA[offset : offset + 5000]]:
                wrong.append(offset)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and limits.AWAY_BLOCK == MIB // 4
