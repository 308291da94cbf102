"""The parts of the corruption rigs that can be wrong by themselves: the model, the changes, the oracle."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from engine import Store
from engine.errors import Corrupt
from engine.maintain.check import CheckReport
from tools.torture.corrupt import decoders, judge, made
from tools.torture.corrupt.model import Damage, Model, merged
from tools.torture.corrupt.mutate import mutate


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    store = tmp_path_factory.mktemp("made") / "store"
    return Model(store, made.make(store, random.Random(1)))


def test_the_store_has_everything_that_can_be_damaged(model: Model) -> None:
    records = [model.files.packs[p.file][p.offset : p.offset + 8] for p in model.places.values()]
    assert {raw[4] for raw in records} == {1, 2, 3, 4}  # kinds
    assert {raw[5] for raw in records} == {0, 1, 2, 3}  # encodings
    assert max(raw[7] for raw in records if raw[4] == 1) >= 2  # deltas of deltas, of data
    assert len(model.sealed) >= 2 and model.committed and model.removed
    members = [member for point in model.points.values() for member in point.values()]
    assert any(member.attributes for member in members)
    assert any(piece.node for member in members for piece in member.pieces)
    assert max(len(member.nodes) for member in members) >= 3


def test_the_model_is_what_the_store_says(model: Model, tmp_path: Path) -> None:
    made.write_files(tmp_path / "store", model.files)
    whole = Damage(model, model.files.packs)
    assert not whole.lost and not whole.told()
    with Store.open(str(tmp_path / "store")) as store:
        assert not list(judge.of_reading(model, whole, store, random.Random(1)))
        point = next(iter(model.points))
        assert not list(judge.of_restore(model, whole, store, point, tmp_path / "out"))


def test_damage_costs_what_is_a_delta_of_it(model: Model) -> None:
    base = next(one for cid, bases in model.bases.items() for one, _, _ in bases)
    place = model.places[base]
    data = bytearray(model.files.packs[place.file])
    data[place.offset + 20] ^= 1
    damage = Damage(model, {**model.files.packs, place.file: bytes(data)})
    assert damage.hurt == {base}
    assert {
        cid for cid, bases in model.bases.items() if base in {one for one, _, _ in bases}
    } <= damage.lost
    assert any(damage.of_point(point) for point in model.points)
    assert list(judge.of_check(model, damage, CheckReport()))  # silence is not enough


def test_ranges_that_touch_are_one() -> None:
    assert merged([(5, 9), (0, 2), (2, 4), (7, 12), (20, 20)]) == [(0, 4), (5, 12)]


def test_a_change_changes_something_and_is_the_same_again() -> None:
    files = {"a": bytes(5000), "b": b"b" * 100, "empty": b""}
    for seed in range(200):
        what, changed = mutate(random.Random(seed), files, {"a": [[(0, 10)]]})
        assert changed and all(files[name] != data for name, data in changed.items()), what
        assert mutate(random.Random(seed), files, {"a": [[(0, 10)]]}) == (what, changed)


def test_mended_inputs_get_past_the_checks() -> None:
    raw = decoders.mended(decoders.record, bytes(48) + b"\1" * 52)
    with pytest.raises(Corrupt, match="limits"):  # and not: damage
        decoders.record(raw)
    decoders.header(decoders.mended(decoders.header, bytes(64)))
    end = struct.pack("<8sIII32s32sI", b"", 64, 0, 0, bytes(32), bytes(32), 0)
    decoders.trailer(decoders.mended(decoders.trailer, end))


def test_what_a_decoder_must_not_take_is_found() -> None:
    with pytest.raises(decoders.Wrong):
        decoders.same(b"a", b"b")
