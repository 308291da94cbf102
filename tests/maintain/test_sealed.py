"""A sealed store through its life: what is on the disk, kept and damaged."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine import Store, limits, supply
from engine import home as homes
from engine.errors import (
    Corrupt,
    FormatTooNew,
    InvalidRequest,
    PermissionDenied,
)
from engine.home import OpenStore
from engine.seam import Os
from tests.maintain.sealed import (
    GOLDEN,
    KEY,
    home,
    key_file,
    keys,
    nothing_at_hand,
    opened,
)
from tests.maintain.support import noise, pack_path, put, restored, sound, three_points

__all__ = ["home", "key_file", "nothing_at_hand"]


# --- what is on the disk --------------------------------------------------------------------------------------


def test_no_content_lies_in_clear(home: Path) -> None:
    """Incompressible, so that what is stored raw would be seen; small and large files, sketches, deltas."""
    parts = [noise(64, seed) for seed in range(40)]
    chance = random.Random(5)
    with opened(home) as store:
        tree = store.open_live("m")
        for number in range(60):
            put(tree, b"small%d" % number, b"".join(chance.choices(parts, k=8)))
        put(tree, b"large", b"".join(parts) * 500)
        put(tree, b"raw", b"".join(parts))
        tree.barrier()
        store.snapshot("m", "one")
        put(tree, b"raw", b"!" + b"".join(parts)[1:])
        tree.close()
        store.snapshot("m", "two")
    files = [path for path in home.rglob("*") if path.is_file()]
    assert any(path.suffix == ".seg" and path.stat().st_size > 4000 for path in files)
    secret = homes._identity(str(home), Os(), None)
    assert secret.seal is not None
    for path in files:
        data = path.read_bytes()
        assert not any(part in data for part in parts), path
        for key in (secret.id_key, KEY.data, secret.seal.master.data):
            assert key not in data and key.hex().encode() not in data, path


def test_a_store_that_is_not_sealed_is_as_ever(tmp_path: Path) -> None:
    Store.init(str(tmp_path / "plain"))
    names = {path.name for path in (tmp_path / "plain").iterdir()}
    assert "keys.json" not in names
    assert sorted(json.loads((tmp_path / "plain" / "format.json").read_text())) == [
        "format", "id_key", "store_id",
    ]  # fmt: skip
    assert json.loads((tmp_path / "plain" / "format.json").read_text())["format"] == 1
    with OpenStore(str(tmp_path / "plain")) as store:
        assert store.context.seal is None and not store.context.added
    with pytest.raises(InvalidRequest, match="sealed one"):
        keys(tmp_path / "plain")


def test_another_program_is_told_that_it_is_too_old(home: Path) -> None:
    identity = json.loads((home / "format.json").read_text())
    assert identity.keys() == {"format", "store_id"} and identity["format"] == 2
    (home / "format.json").write_text(json.dumps({**identity, "format": 3}))
    with pytest.raises(FormatTooNew):
        OpenStore(str(home), key=KEY)
    (home / "format.json").write_text(json.dumps({**identity, "id_key": "11" * 32}))
    with pytest.raises(Corrupt):
        OpenStore(str(home), key=KEY)


def test_who_writes_to_the_disk_has_nothing_be_written_in_clear(home: Path) -> None:
    """By a store that says it never was sealed, with an id key that he knows."""
    identity = json.loads((home / "format.json").read_text())
    (home / "format.json").write_text(json.dumps({**identity, "format": 1, "id_key": "11" * 32}))
    for name in ("keys.json", "keys.copy.json"):
        (home / name).unlink()
    with pytest.raises(PermissionDenied, match="find out who changed it"):
        OpenStore(str(home), key=KEY)
    config = home.parent / "holdfast.toml"
    (home.parent / "key").write_bytes(KEY.data)
    (home.parent / "key").chmod(0o600)
    config.write_text(f'store = "{home}"\nstore_key = "file:{home.parent}/key"\n')
    done = subprocess.run(
        [sys.executable, "-c", "from daemon.cli.main import main; main()", "serve", "--config", str(config)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 14 and "says it is not sealed" in done.stderr


def test_golden_store(tmp_path: Path, key_file: Path) -> None:
    """Made once, as this format has it: packs of a store whose ring has two epochs, by which it is read for ever."""
    home = tmp_path / "golden"
    shutil.copytree(GOLDEN, home)
    for name in ("segments", "workers", "run", "quarantine", "index"):
        (home / name).mkdir(exist_ok=True)
    assert Store.rebuild_index(str(home), key=KEY).done
    wanted = {"db": bytes(range(256)) * 300, "raw": noise(500, 1), "late": b"in the second epoch"}
    with Store.open(str(home), key=KEY) as store:
        sound(store)
        assert restored(store, "m@latest", tmp_path / "out") == wanted
        assert store._open.context.seal is not None and store._open.context.seal.epoch == 2
    rescue = Path(__file__).parents[2] / "tools" / "rescue.py"
    (tmp_path / "rescued").mkdir()
    point = store_points(home)[-1]
    done = subprocess.run(
        [sys.executable, rescue, home, point, tmp_path / "rescued" / "out"],
        env={**os.environ, supply.KEY_FILE: str(key_file)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {path.name: path.read_bytes() for path in (tmp_path / "rescued" / "out").iterdir()}
    assert found == wanted
    assert Store.check_without_key(str(home)).problems == []


def store_points(home: Path) -> list[str]:
    with Store.open(str(home), key=KEY) as store:
        return [point.id for point in store.points()]


# --- kept, killed, damaged ------------------------------------------------------------------------------------


def test_collected_scrubbed_rebuilt_and_restored(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PACK_MAX", 400_000)
    with opened(home) as store:
        points = three_points(store)
        before = restored(store, points[2], tmp_path / "before")
        store.remove_points(points[:2])
        found = store.collect()
        assert found.dead_chunks and found.packs_removed
        sound(store)
        assert store.scrub().finished and not store.scrub().problems
        assert restored(store, points[2], tmp_path / "after") == before
    Store.rebuild_index(str(home))
    with opened(home) as store:
        sound(store)
        assert restored(store, points[2], tmp_path / "rebuilt") == before
    assert Store.check_without_key(str(home)).problems == []


# --- without a key --------------------------------------------------------------------------------------------


def test_without_a_key_damage_is_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PACK_MAX", 200_000)
    with opened(home) as store:
        three_points(store)
    supply.forget()
    found = Store.check_without_key(str(home))
    assert found.problems == [] and found.counts["records"] > 10 and found.counts["packs"] > 2
    packs = sorted(home.glob("packs/*/*.pack"))[:2]
    whole = [path.read_bytes() for path in packs]
    for path, data, at in ((packs[0], whole[0], 5000), (packs[1], whole[1], -300)):
        at %= len(data)
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    problems = Store.check_without_key(str(home)).problems
    assert {one.thing for one in problems} == {f"pack {int(path.stem)}" for path in packs}
    packs[1].write_bytes(whole[1])
    packs[0].unlink()
    assert [one.code for one in Store.check_without_key(str(home)).problems] == ["pack"]


def test_without_a_key_a_record_that_is_gone_from_a_segment_is_found(home: Path) -> None:
    with opened(home) as store:
        tree = store.open_live("m")
        put(tree, b"a", noise(5000, 1))
        tree.close()
    segment = pack_path(home, 1)
    data = segment.read_bytes()
    at = data.index(b"HFR1")
    segment.write_bytes(data[:at] + b"HFR0" + data[at + 4 :])
    assert [one.thing for one in Store.check_without_key(str(home)).problems] == ["pack 1"]
