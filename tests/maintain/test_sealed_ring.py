"""Who opens a sealed store: secrets, what hands them on, and the ring as it is changed, killed and damaged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import Store, supply
from engine import home as homes
from engine.errors import (
    AlreadyExists,
    Busy,
    Corrupt,
    NoKey,
    NotFound,
    PermissionDenied,
)
from engine.home import OpenStore
from engine.keys import Both, Identity, Key, Opener, Passphrase, Secret
from engine.seam import Os
from tests.maintain.sealed import (
    CHEAP,
    IDENTITY,
    KEY,
    Expect,
    home,
    key_file,
    keys,
    nothing_at_hand,
    written,
)
from tests.maintain.support import MortalOs, noise, restored, sound

__all__ = ["home", "key_file", "nothing_at_hand"]


# --- who opens it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seal", "opens", "others"),
    [
        (Passphrase("a word"), Passphrase("a word"), [Passphrase("another"), KEY]),
        (KEY, KEY, [Key(b"x" * 32), Passphrase("a word"), IDENTITY]),
        (Both(Passphrase("a word"), KEY), Both(Passphrase("a word"), KEY), [KEY, Passphrase("a word")]),
        (IDENTITY.recipient, IDENTITY, [Identity(b"x" * 32), KEY]),
    ],
    ids=["passphrase", "key", "both", "recipient"],
)  # fmt: skip
def test_what_opens_it(tmp_path: Path, seal: Secret, opens: Opener, others: list[Opener]) -> None:
    homes.init(str(tmp_path / "store"), seal=[seal], cost=CHEAP)
    supply.forget()
    with pytest.raises(PermissionDenied, match=r"its passphrase or key.*HOLDFAST_KEY_FILE"):
        OpenStore(str(tmp_path / "store"))
    for other in others:
        with pytest.raises(PermissionDenied, match="one of the 1 slots"):
            OpenStore(str(tmp_path / "store"), key=other)
    with OpenStore(str(tmp_path / "store"), key=opens) as one, OpenStore(one.path) as again:
        assert again.context.key == one.context.key


def test_the_way_is_named_by_the_environment(
    home: Path, key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supply.forget()
    monkeypatch.setenv(supply.KEY_FILE, str(key_file))
    OpenStore(str(home)).close()
    supply.forget()
    monkeypatch.setenv(supply.KEY_FILE, "credential:store.key")
    with pytest.raises(NotFound, match="LoadCredential"):
        OpenStore(str(home))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    OpenStore(str(home)).close()
    keys(home).change([Both(Passphrase("a word"), KEY)], [keys(home).show().facts.slots[0].id])
    supply.forget()
    with pytest.raises(PermissionDenied):
        OpenStore(str(home))
    words = tmp_path / "words"
    words.write_text("a word\n")
    monkeypatch.setenv(supply.PASSPHRASE_FILE, str(words))
    words.chmod(0o644)
    with pytest.raises(PermissionDenied, match="chmod 600"):
        OpenStore(str(home))
    words.chmod(0o600)
    OpenStore(str(home)).close()


def test_who_is_at_the_terminal_is_asked_once(home: Path) -> None:
    supply.forget()
    asked: list[str] = []

    def ask(path: str) -> Opener:
        asked.append(path)
        return KEY

    supply.asking(ask)
    for _ in range(3):
        OpenStore(str(home)).close()
    assert asked == [str(home)]


def test_a_child_is_handed_what_its_parent_opened(home: Path) -> None:
    program = (
        "import os, sys\nfrom engine.home import OpenStore\n"
        "OpenStore(sys.argv[1]).close()\nassert 'HOLDFAST_KEY_FD' not in os.environ"
    )
    command = [sys.executable, "-c", program, str(home)]
    with supply.handing() as (variables, fds):
        assert KEY.data.hex() not in str(variables) and len(fds) == 1
        environment = {**os.environ, **variables}
        subprocess.run(command, env=environment, pass_fds=fds, check=True)
    supply.forget()
    with supply.handing() as (variables, fds):
        assert not fds
        environment = {**environment, **variables}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "PermissionDenied" in done.stderr


# --- the ring ---


def test_init_killed_at_any_step(tmp_path: Path) -> None:
    def work(home: Path, system: Os) -> None:
        homes.init(str(home), seal=[KEY], cost=CHEAP, system=system)

    begun_again = 0
    for _, place in killed(tmp_path, work, first=10):  # those before are as ever
        if not (place / "format.json").exists():
            work(place, Os())
            begun_again += 1
        OpenStore(str(place), key=KEY).close()
        with pytest.raises(AlreadyExists):
            work(place, Os())
    assert begun_again > 5


def test_rotation_killed_at_any_step(home: Path, tmp_path: Path) -> None:
    def work(copy: Path, system: Os) -> None:
        keys(copy, KEY, system).rotate()

    epochs = set()
    for _, copy in killed(tmp_path, work, home):
        with OpenStore(str(copy), key=KEY) as store:
            assert store.context.seal is not None
            epochs.add(store.context.seal.epoch)
            homes_same = (copy / "keys.json").read_bytes() == (copy / "keys.copy.json").read_bytes()
        with Store.open(str(copy), key=KEY) as one:
            assert bool(one.check().problems) != homes_same
            one.repair()
            assert one.check().problems == []
        keys(copy).rotate()
    assert epochs == {1, 2}


def killed(
    tmp_path: Path, work: Callable[[Path, Os], None], made: Path | None = None, first: int = 0
) -> Iterator[tuple[int, Path]]:
    """A store for each step, from ``first`` on, before which the work may be killed, until it is not."""
    for step in range(first, 200):
        home = tmp_path / f"killed{step}"
        if made is not None:
            shutil.copytree(made, home)
        pid = os.fork()
        if not pid:
            try:
                work(home, MortalOs(step))
                os._exit(0)
            except BaseException:  # noqa: BLE001  the child must not go on as a test
                os._exit(1)
        status = os.waitpid(pid, 0)[1]
        assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0
        yield step, home
        if os.WIFEXITED(status):
            return
    raise AssertionError("it is never done")


def test_a_damaged_ring_has_a_copy(home: Path, expect_log: Expect) -> None:
    raw = (home / "keys.json").read_bytes()
    at = raw.index(b'"wrapped"') + 15
    expect_log("keys.json|its copy is used")
    for data in (raw[: len(raw) // 2], raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :], b""):
        (home / "keys.json").write_bytes(data)
        supply.forget()
        with Store.open(str(home), key=KEY) as store:
            assert store.check().problems[0].code == "keys"
            assert store.repair().done
            assert store.check().problems == []
        assert (home / "keys.json").read_bytes() == raw
    for name in ("keys.json", "keys.copy.json"):
        (home / name).write_bytes(raw[:100])
    with pytest.raises(Corrupt, match=r"restore this file from a copy"):
        OpenStore(str(home), key=KEY)


def test_an_older_copy_lets_nobody_in_who_was_left_out(home: Path) -> None:
    before = (home / "keys.json").read_bytes()
    keys(home).change([Key(b"2" * 32)], [keys(home).show().facts.slots[0].id])
    (home / "keys.copy.json").write_bytes(before)
    supply.forget()
    with pytest.raises(PermissionDenied):
        OpenStore(str(home), key=KEY)
    OpenStore(str(home), key=Key(b"2" * 32)).close()


def test_who_has_it_open_follows_a_rotation(home: Path, tmp_path: Path) -> None:
    with Store.open(str(home)) as one:
        one.create_mount("m")
        tree = one.open_live("m")
        first = written(one, tree, b"a", noise(50_000, 1))
        assert keys(home).rotate().facts.epochs == (1, 2)
        with pytest.raises(Busy):
            keys(home).rotate([KEY])
        with Store.open(str(home)) as other:
            seal = other._open.context.seal
            assert seal is not None and seal.epoch == 2
            other.create_mount("n")
            grown = other.open_live("n")
            second = written(other, grown, b"b", noise(50_000, 2))
            grown.close()
        assert restored(one, second, tmp_path / "b")["b"] == noise(50_000, 2)
        assert restored(one, first, tmp_path / "a")["a"] == noise(50_000, 1)
        tree.close()
        sound(one)
    keys(home).rotate([KEY])
    supply.forget()
    with Store.open(str(home), key=KEY) as again:
        sound(again)


def test_an_older_ring_is_no_damage(home: Path, tmp_path: Path, expect_log: Expect) -> None:
    """What a key is lacking for is neither marked nor left out of an index, and is there when the ring is back."""
    before = (home / "keys.json").read_bytes()
    with Store.open(str(home)) as store:
        store.create_mount("m")
        tree = store.open_live("m")
        written(store, tree, b"a", noise(50_000, 1))
        tree.close()
    keys(home).rotate()
    now = (home / "keys.json").read_bytes()
    with Store.open(str(home)) as store:
        tree = store.open_live("m")
        point = written(store, tree, b"b", noise(50_000, 2))
        tree.close()
    for name in ("keys.json", "keys.copy.json"):
        (home / name).write_bytes(before)
    index = (home / "index" / "data.mdb").read_bytes()
    with pytest.raises(NoKey, match=r"epochs \[2\].*index is as it was"):
        Store.rebuild_index(str(home), key=KEY)
    assert (home / "index" / "data.mdb").read_bytes() == index
    with Store.open(str(home), key=KEY) as store:
        report = store.restore(point, b"", os.fsencode(tmp_path / "out"))
        assert "epoch 2" in str(report.damaged)
        texts = [one.text for one in store.check(read_data=True).problems if one.code == "chunk"]
        assert texts and all("epoch 2" in text for text in texts)
        with pytest.raises(NoKey):
            store.collect()
        assert store.scrub().suspects == 0
    for name in ("keys.json", "keys.copy.json"):
        (home / name).write_bytes(now)
    with Store.open(str(home), key=KEY) as store:
        sound(store)
        assert restored(store, point, tmp_path / "out2")["b"] == noise(50_000, 2)
