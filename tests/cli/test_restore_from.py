"""``holdfast restore --from``: from a URL without any store, from a location of a store, gone on with, and refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.service import extras
from daemon.service.extras import Kept, KeptText
from engine import Store
from engine.copies.connect import Wanted, add
from engine.keys import Key, Passphrase
from tests.cli.support import good, holdfast, new_store, noise, put, refused, write
from tests.keys.support import CHEAP
from tests.locations.places import KINDS, Place, laid

KEY = Key(bytes(range(32)))
FILES = {b"a.dbf": noise(3_000_000, 1), b"b.dbf": noise(20_000, 2), b"c.dbf": b"c"}
LOG = KeptText("log", "rman.log", 1, {"ORCL": ["/u01/b.dbf", "/u01/c.dbf", "/u01/none.dbf"]}, b"-")


class There:
    """A location with a point of three files and a log of a database, and its store."""

    def __init__(self, base: Path, place: Place) -> None:
        self.store, self.url = base / "store", place.url
        Store.init(str(self.store))
        with Store.open(str(self.store)) as store:
            store.create_mount("m")
            tree = store.open_live("m")
            for name, data in FILES.items():
                put(tree, name, data)
            tree.close()
            self.point = store.snapshot("m").id
            wanted = Wanted(self.url, [Passphrase("a word"), KEY])
            add(store._open.context, "far", wanted, cost=CHEAP).location.close()
            store.copies.send("far", extras=lambda point: extras.encode(Kept(attachments=[LOG])))


@pytest.fixture(scope="module", params=KINDS)
def there(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[There]:
    base = tmp_path_factory.mktemp("from")
    with laid(request.param, request, base / "there") as place:
        yield There(base, place)


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.write_text(KEY.printed())
    path.chmod(0o600)
    return str(path)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def found(out: Path) -> dict[bytes, bytes]:
    return {os.fsencode(one.name): one.read_bytes() for one in out.iterdir()}


def test_with_nothing_but_the_location(
    there: There, key: str, tmp_path: Path, scratch: Path
) -> None:
    out, none = tmp_path / "out", tmp_path / "no-store"
    done = holdfast(none, "restore", "m@latest", str(out), "--from", there.url, "--key-file", key)
    assert "3 files" in good(done) and "fingerprint" in done.stderr
    assert found(out) == FILES and not none.exists() and list(scratch.iterdir()) == []
    (out / "b.dbf").write_bytes(b"changed")
    again = ("restore", there.point[:12], str(out), "--from", there.url, "--key-file", key)
    refused_line = holdfast(none, *again)
    assert refused_line.returncode == 11 and "--force" in refused_line.stderr
    told = json.loads(good(holdfast(none, *again, "--resume", "--json")))
    assert found(out) == FILES and told["kept"] >= 2_900_000 > 100_000 > told["bytes"]


def test_from_a_location_of_the_store_by_name(there: There, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("restore", there.point, "c.dbf", "b.dbf", str(out), "--from", "far")
    assert "2 files" in good(holdfast(there.store, *words))
    assert found(out) == {name: FILES[name] for name in (b"b.dbf", b"c.dbf")}
    alone = tmp_path / "alone"
    good(holdfast(there.store, "restore", there.point, "c.dbf", str(alone), "--from", "far"))
    assert alone.read_bytes() == b"c"


@pytest.mark.seldom
def test_the_files_of_a_database(there: There, key: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("restore", there.point, str(out), "--from", there.url, "--key-file", key, "--database")
    assert "2 files" in good(holdfast(tmp_path, *words, "ORCL"))
    assert found(out) == {name: FILES[name] for name in (b"b.dbf", b"c.dbf")}
    done = holdfast(tmp_path, *words, "OTHER")
    assert done.returncode == 10 and "databases: ORCL" in done.stderr


def test_what_is_refused(there: There, key: str, tmp_path: Path, scratch: Path) -> None:
    out = str(tmp_path / "out")

    def words(*more: str, point: str = there.point) -> tuple[str, ...]:
        return ("restore", point, out, *more)

    wrong = tmp_path / "wrong"
    wrong.write_text("another word")
    wrong.chmod(0o600)
    url = ("--from", there.url)
    refused(holdfast(tmp_path, *words(*url, "--passphrase-file", str(wrong))), 14, "opens none")
    refused(holdfast(tmp_path, *words(*url)), 2, "--passphrase-file, --key-file, or a terminal")
    nowhere = holdfast(tmp_path, *words(*url, "--key-file", key, point="01zzzzzz"))
    assert nowhere.returncode == 10 and "'01zzzzzz'" in nowhere.stderr
    refused(holdfast(there.store, *words("--from", "nowhere")), 10, "locations: far")
    assert holdfast(there.store, *words("--from", "far", "--key-file", key)).returncode == 2
    assert holdfast(there.store, "restore", there.point, "--place", "x", *url).returncode == 2
    assert not os.path.exists(out) and list(scratch.iterdir()) == []


@pytest.mark.seldom
def test_ended_by_a_signal_it_leaves_no_scratch(
    there: There, key: str, tmp_path: Path, scratch: Path
) -> None:
    program = "import time, engine.restore.tree as t\n" \
        "t.restore = lambda *a, **k: (print('begun', flush=True), time.sleep(60))\n" \
        "import engine.restore; engine.restore.restore = t.restore\n" \
        "from daemon.cli.main import main; main()"  # fmt: skip
    words = ["restore", there.point, str(tmp_path / "out"), "--from", there.url, "--key-file", key]
    with subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"begun\n"
        assert len(list(scratch.iterdir())) == 1
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 128 + signal.SIGTERM
    assert list(scratch.iterdir()) == []


def unmounted(where: Path, scratch: Path) -> None:
    """Unmount, and see that nothing is left within seconds."""
    good(holdfast(where, "umount", str(where)))
    end = time.monotonic() + 20
    while list(scratch.iterdir()) and time.monotonic() < end:
        time.sleep(0.05)
    assert list(scratch.iterdir()) == []


@pytest.mark.needs_fuse
def test_a_point_is_mounted_and_streams_in(
    there: There, key: str, tmp_path: Path, scratch: Path
) -> None:
    where = tmp_path / "mnt"
    where.mkdir()
    words = ("mount", "m@latest", str(where), "--from", there.url, "--key-file", key)
    good(holdfast(tmp_path / "no-store", *words, "--background"))
    try:
        assert (where / "b.dbf").read_bytes() == FILES[b"b.dbf"]
        assert found(where) == FILES
        with pytest.raises(OSError, match="Read-only"):
            (where / "new").touch()
        (mine,) = scratch.iterdir()
        kept = mine / "store" / "cache"
        end = time.monotonic() + 20
        while sum(one.stat().st_size for one in kept.iterdir()) < 3_000_000:
            assert time.monotonic() < end, "the rest is fetched by itself"
            time.sleep(0.05)
        with Store.borrow(there.url, KEY, scratch=str(scratch)):
            assert mine.exists(), "its process holds it, the one that began it has ended"
    finally:
        unmounted(where, scratch)
    for wrong in (("m", 2), ("n@latest", 10), ("m@01zzzz", 10)):
        done = holdfast(tmp_path, "mount", wrong[0], *words[2:], "--background")
        assert done.returncode == wrong[1], done.stderr
    assert list(scratch.iterdir()) == []


@pytest.mark.needs_fuse
@pytest.mark.seldom
def test_a_small_cache_says_so_and_all_is_read(there: There, tmp_path: Path, scratch: Path) -> None:
    where, log = tmp_path / "mnt", tmp_path / "log"
    where.mkdir()
    program = "from daemon.cli.main import main; main()"
    words = ["--store", str(there.store), "mount", "m@latest", str(where), "--from", "far"]
    command = [sys.executable, "-c", program, *words, "--cache-size", "1M"]
    with log.open("wb") as said, subprocess.Popen(command, stderr=said) as child:
        try:
            end = time.monotonic() + 20
            while not os.path.ismount(where) and time.monotonic() < end:
                time.sleep(0.05)
            assert found(where) == FILES
            while b"no room" not in log.read_bytes() and time.monotonic() < end:
                time.sleep(0.05)
            assert "the cache of 1 MiB has no room" in log.read_text()
            assert found(where) == FILES
        finally:
            unmounted(where, scratch)
        assert child.wait(20) == 0


def test_a_database_of_a_store_by_its_log(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    session = json.loads(good(holdfast(store, "begin", "m", "--json")))["id"]
    write(store, FILES)
    manifest = tmp_path / "backup_manifest"
    manifest.write_text(
        json.dumps({"PostgreSQL-Backup-Manifest-Version": 1, "Files": [{"Path": "b.dbf"}]})
    )
    good(holdfast(store, "log", session, str(manifest)))
    good(holdfast(store, "commit", session))
    out = tmp_path / "out"
    words = ("restore", "m@latest", str(out), "--database")
    assert "1 file" in good(holdfast(store, *words, "postgresql"))
    assert found(out) == {b"b.dbf": FILES[b"b.dbf"]}
    done = holdfast(store, *words, "other")
    assert done.returncode == 10 and "databases: postgresql" in done.stderr
