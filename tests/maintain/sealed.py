"""What the tests of sealed stores share: one, opened by nothing but what a test gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine import Store, supply
from engine.home import OpenStore
from engine.keys import Identity, Key, Opener
from engine.keys.primitives import Cost
from engine.live.tree import LiveTree
from engine.seam import Os
from engine.storekeys import StoreKeys
from tests.maintain.support import put

CHEAP = Cost(memory_kib=64, passes=1, lanes=1)
KEY = Key(b"k" * 32)
IDENTITY = Identity(b"i" * 32)
GOLDEN = Path(__file__).parent / "golden" / "sealed-store"
Expect = Callable[[str], None]


@pytest.fixture(autouse=True)
def nothing_at_hand(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No key but what a test gives."""
    for name in (supply.KEY_FILE, supply.PASSPHRASE_FILE):
        monkeypatch.delenv(name, raising=False)
    supply.forget()
    yield
    supply.forget()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """In the place of the one that is not sealed: ``store`` is opened with what is at hand, as everybody's is."""
    Store.init(str(tmp_path / "store"), seal=[KEY])
    OpenStore(str(tmp_path / "store"), key=KEY).close()
    return tmp_path / "store"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    (tmp_path / "store.key").touch(0o600)
    (tmp_path / "store.key").write_text(KEY.printed())
    return tmp_path / "store.key"


def keys(home: Path, opener: Opener = KEY, system: Os | None = None) -> StoreKeys:
    return StoreKeys(str(home), opener, cost=CHEAP, system=system or Os())


@contextmanager
def opened(home: Path) -> Iterator[Store]:
    with Store.open(str(home), key=KEY) as store:
        if not store.mounts():
            store.create_mount("m")
        yield store


def written(store: Store, tree: LiveTree, name: bytes, data: bytes) -> str:
    put(tree, name, data)
    tree.barrier()
    return store.snapshot(store.mounts()[-1].name).id
