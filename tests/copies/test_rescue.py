"""The rescue program on a location made from a real store: what it restores, what it says, what it refuses."""

import ast
import contextlib
import importlib
import itertools
import os
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Store
from engine.copies.journal import Checkpoint, Locked, Removed, encode, path_of
from engine.keys import Both, Identity, Key, Passphrase
from engine.live import ROOT
from tests.copies import made
from tests.copies.made import Made
from tests.copies.test_adopt import filled
from tests.copies.test_reach import grown
from tests.copies.test_upload import SECRET
from tests.locations.places import Place
from tests.maintain.support import CTX, noise, put

FILES = [
    Path(__file__).parents[2] / name
    for name in (
        "tools/location_rescue/holdfast_rescue.py",
        "tools/location_rescue/rescue_location.py",
        "tools/location_rescue/rescue_trees.py",
    )
]
__all__ = ["grown"]
PASS, KEY, SAFE = Passphrase("swordfish"), Key(b"k" * 32), Identity(b"s" * 32)
BOTH = Both(Passphrase("second"), KEY)


def fill(store: Store) -> list[str]:
    """Two points: of a tree with what trees have, and of the same after a change."""
    tree = store.open_live("m")
    for i in range(300):  # a directory of several nodes
        put(tree, b"file number %d" % i, b"%d" % i * i)
    ino = put(tree, b"big.dbf", noise(3_000_000, 3))
    tree.setattr(ino, size=40_000_000, now_ns=7)
    tree.setxattr(ino, b"user.x", noise(3000, 4))
    tree.link(ino, ROOT, b"hard")
    tree.symlink(ROOT, b"link", b"/etc/passwd", CTX)
    folder = tree.mkdir(ROOT, b"a\x1b[31m folder", 0o751, CTX).ino
    tree.create(folder, b"empty", 0o4640, CTX)
    tree.barrier()
    first = store.snapshot("m").id
    tree.write(ino, 100, b"changed")
    tree.barrier()
    second = store.snapshot("m").id
    tree.close()
    return [first, second]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, list[str], Made]]:
    root = tmp_path_factory.mktemp("rescue")
    Store.init(str(root / "store"))
    with Store.open(str(root / "store")) as store:
        store.create_mount("m")
        points = fill(store)
        yield (
            store,
            points,
            made.location(Place(root / "sealed"), store, [PASS, KEY, SAFE.recipient, BOTH]),
        )


@pytest.fixture
def copied(base: tuple[Store, list[str], Made], tmp_path: Path) -> Path:
    """The location, to be damaged."""
    return Path(shutil.copytree(base[2].place.root, tmp_path / "copied"))


def rescue(
    root: Path, *words: str, secret: str = "swordfish", key: bytes = b""
) -> tuple[int, str, str]:
    options = []
    for name, data in (("passphrase", secret.encode()), ("key", key)):
        if data:
            path = root.parent / f"{name}-file"
            path.write_bytes(data)
            options += [f"--{name}-file", str(path)]
    done = subprocess.run(
        [sys.executable, "-E", "-s", str(FILES[0]), str(root), *options, *words],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        mode = info.st_mode & ~(stat.S_ISUID | stat.S_ISGID)
        data: object = os.readlink(path) if path.is_symlink() else None
        attributes = os.listxattr(path, follow_symlinks=False)
        if stat.S_ISREG(mode):
            data = (path.read_bytes(), info.st_nlink)
        found[str(path.relative_to(root))] = (mode, info.st_uid, info.st_mtime_ns, data, attributes)
    return found


def test_it_is_alone() -> None:
    """Nothing of the project is imported, but by its tests."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] not in ("engine", "daemon", "fsmount", "tools", "tests")


def test_rescue_equals_restore(base: tuple[Store, list[str], Made], tmp_path: Path) -> None:
    store, points, location = base
    for number, point in enumerate(points):
        wanted, got = tmp_path / f"a{number}", tmp_path / f"b{number}"
        store.restore(point, b"", os.fsencode(wanted))
        code, out, err = rescue(location.place.root, "restore", point, "--to", str(got))
        assert code == 0, err
        assert "0 problems" in out and location.vault.fingerprint in err
        assert tree(got) == tree(wanted)
        assert wanted.stat().st_mtime_ns == got.stat().st_mtime_ns


def test_what_was_sent_and_mirrored_with_any_tool(
    engine: Store, grown: list[str], place: Place, tmp_path: Path
) -> None:
    filled(engine, place, [SECRET])
    mirror = place.mirror(tmp_path / "mirror")
    code, out, err = rescue(mirror, "check", secret="a word or two")
    assert code == 0 and "3 points" in out, err
    for point in grown:
        wanted, got = tmp_path / f"a-{point}", tmp_path / f"b-{point}"
        engine.restore(point, b"", os.fsencode(wanted))
        code, out, err = rescue(mirror, "restore", point, "--to", str(got), secret="a word or two")
        assert code == 0 and "0 problems" in out, err
        assert tree(got) == tree(wanted)


def test_a_location_that_is_not_sealed(base: tuple[Store, list[str], Made], tmp_path: Path) -> None:
    store, points, _ = base
    plain = made.location(Place(tmp_path / "plain"), store, [], checkpoint=True)
    plain.append(Removed((points[0],)))
    plain.append(Locked((points[1],), 9))
    plain.append(Locked((points[1],), 5))
    plain.append(Removed((points[1],)), time_ns=8)
    code, out, err = rescue(plain.place.root, "list", secret="")
    assert (code, out.split()[0]) == (0, points[1]), err
    assert f"'{points[1]}' stays" in err and points[0] not in out
    code, _, err = rescue(
        plain.place.root, "restore", points[1], "big.dbf", "--to", str(tmp_path / "x"), secret=""
    )
    assert code == 0, err
    assert (tmp_path / "x" / "big.dbf").read_bytes()[100:107] == b"changed"
    assert (
        rescue(plain.place.root, "list")[0] == 14
    )  # a secret was given: this cannot be what was meant


@pytest.mark.parametrize(
    ("secret", "key", "code"),
    [
        ("", KEY.data, 0), ("", KEY.printed().encode(), 0), ("", SAFE.printed().encode(), 0),
        ("second", KEY.data, 0), ("second", b"", 14), ("wrong", b"", 14), ("", b"K" * 32, 14),
        ("", b"K" * 31, 2), ("", SAFE.recipient.printed().encode(), 2),
    ],
    ids=str,
)  # fmt: skip
def test_what_opens_it(copied: Path, secret: str, key: bytes, code: int) -> None:
    found, out, err = rescue(copied, "list", secret=secret, key=key)
    assert found == code
    assert len(out.splitlines()) == (2 if code == 0 else 0)
    assert "swordfish" not in err and KEY.printed()[:11] not in err


def test_listing_shows_names_that_do_nothing(base: tuple[Store, list[str], Made]) -> None:
    _, points, location = base
    code, out, _ = rescue(location.place.root, "ls", points[0])
    assert code == 0 and "\x1b" not in out and "a\\x1b[31m folder" in out
    assert "link -> /etc/passwd" in out
    assert rescue(location.place.root, "ls", points[0], "none")[0] == 10
    assert rescue(location.place.root, "ls", "zzz")[0] == 10


def test_checks_find_what_is_wrong(copied: Path) -> None:
    assert rescue(copied, "check", "--keyless", secret="")[0] == 0
    code, out, err = rescue(copied, "check")
    assert code == 0 and "2 points" in out, err
    packs = sorted(copied.glob("packs/*/*"))
    data = bytearray(packs[0].read_bytes())
    data[100] ^= 1
    packs[0].write_bytes(data)
    code, _, err = rescue(copied, "check", "--keyless", secret="")
    assert code == 20 and packs[0].name in err
    packs[1].unlink()
    code, _, err = rescue(copied, "check")
    assert code == 20 and f"{packs[1].name}': missing" in err and "the frame at 64" in err


def test_what_can_be_read_is_restored(
    copied: Path, base: tuple[Store, list[str], Made], tmp_path: Path
) -> None:
    _, points, location = base
    row = next(row for row in location.rows if row.kind == 1)
    (copied / "packs" / row.name[:2] / row.name).unlink()
    code, out, err = rescue(copied, "restore", points[1], "--to", str(tmp_path / "x"))
    assert code == 20 and "is in no pack" in err and ", 0 problems" not in out
    assert len(list((tmp_path / "x").iterdir())) == 304


def test_a_journal_with_gaps_and_none_at_all(
    copied: Path, base: tuple[Store, list[str], Made]
) -> None:
    _, points, _ = base
    (copied / "journal" / f"{2:016d}").unlink()
    code, out, err = rescue(copied, "list")
    assert code == 20 and "does not follow" in err and points[1] in out
    shutil.rmtree(copied / "journal")
    code, out, err = rescue(copied, "list")
    assert code == 20 and "looked for in the packs" in err
    assert [line.split()[0] for line in out.splitlines()] == points


def test_what_is_no_file_holds_nobody_up(
    copied: Path, base: tuple[Store, list[str], Made], tmp_path: Path
) -> None:
    _, points, location = base
    for place in (made.sealed.path_of(location.rows[-1].name), path_of(2)):
        (copied / place).unlink()
        os.mkfifo(copied / place)
    code, out, err = rescue(copied, "list")
    assert code == 20 and err.count("no file") == 2 and points[1] in out


def test_no_checkpoint_forgets_what_is_locked(tmp_path: Path) -> None:
    Store.init(str(tmp_path / "store"))
    with Store.open(str(tmp_path / "store")) as store:
        store.create_mount("m")
        locked, other = (store.snapshot("m").id for _ in range(2))
        one = made.location(Place(tmp_path / "there"), store, [PASS])
    one.append(Locked((locked,), 1000))
    chain = one.chain
    nothing = Checkpoint(chain.state.store, (), tuple(one.rows), {})
    for time_ns, left in ((999, [locked]), (1000, [])):
        raw = encode(one.vault, chain.next(made.WRITER, time_ns, nothing))
        one.place.write(path_of(chain.seq + 1), raw)
        code, out, err = rescue(one.place.root, "list")
        assert [line.split()[0] for line in out.splitlines()] == left and other not in out
        assert (code == 20) == bool(left) == ("which is locked" in err)


def test_nothing_is_written_over(base: tuple[Store, list[str], Made], tmp_path: Path) -> None:
    _, points, location = base
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("there", "link", "none/below"):
        assert (
            rescue(location.place.root, "restore", points[0], "--to", str(tmp_path / name))[0] == 2
        )
    assert not (tmp_path / "elsewhere").exists()


def test_addresses_that_are_no_directory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-E", "-s", str(FILES[0]), "s3://a/b", "list"], timeout=60
    )
    assert done.returncode == 2
    code, _, err = rescue(tmp_path, "list", secret="")
    assert code == 20 and "holdfast.json" in err


def test_hostile_names_stay_outside(base: tuple[Store, list[str], Made], tmp_path: Path) -> None:
    """What whoever has the keys could write: names with a way out, a tree without end."""
    script = f"""
import sys; sys.path.insert(0, {str(FILES[0].parent)!r})
import struct, holdfast_rescue as r, rescue_location as l
class Place:
    problems = 0
    def problem(self, text): self.problems += 1
    def read(self, cid): return NODES[cid]
def entry(name, mode, rest=b""):
    return l.MEMBER.pack(len(name), 0, 0, mode, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0) + name + rest
def leaf(*records):
    return struct.pack("<BBBH", 0x44, 1, 0, len(records)) + struct.pack("<%dH" % len(records), *map(len, records)) \\
        + b"".join(records)
NODES = {{}}
for number, name in enumerate((b"..", b".", b"", b"../out", b"/tmp/out", b"a\\0b")):
    NODES[bytes([number]) * 32] = leaf(entry(name, 0o100644))
NODES[b"d" * 32] = leaf(entry(b"same", 0o100644), entry(b"same", 0o120777, b"/tmp"))
NODES[b"l" * 32] = leaf(entry(b"a", 0o120777, b".."), entry(b"a", 0o40755, b"x" * 32))
NODES[b"o" * 32] = leaf(entry(b"in", 0o40755, b"o" * 32))
for number, root in enumerate(NODES):
    place = Place()
    one = r.Restore(place, "t%d" % number, 50, False)
    try:
        one.tree(r.Entry(entry(b"", 0o40755, root)))
        assert place.problems, root
    except l.Stop as stop:
        assert root == b"o" * 32 and stop.code == 20
"""
    subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, check=True, timeout=60)
    assert {path.name for path in tmp_path.iterdir()} == {f"t{n}" for n in range(9)}


@pytest.fixture(scope="module")
def decoders() -> Iterator[object]:
    sys.path.insert(0, str(FILES[0].parent))
    yield importlib.import_module("rescue_trees")
    sys.path.remove(str(FILES[0].parent))


@given(st.binary(max_size=300), st.sampled_from([b"", b"D\1", b"S\1", b"F\1", b"\1\1\1", b"\1\3"]))
def test_decoders_take_or_refuse_any_bytes(decoders: Any, data: bytes, start: bytes) -> None:
    """What is raised is what the program catches."""

    class Place:
        def problem(self, text: object) -> None:
            pass

        def read(self, cid: bytes) -> bytes:
            return start + data

    refused = (decoders.Damage, IndexError, struct.error)
    for decode in (
        decoders.extents,
        decoders.Entry,
        lambda raw: (
            list(decoders.members(Place(), b"i" * 32))
            if start != b"D\1" or raw[2:3] == b"\0"
            else 0
        ),
        lambda raw: list(decoders.xattrs(Place(), raw)),
        lambda raw: (
            list(itertools.islice(decoders.spans(Place(), raw), 50)) if raw[:1] != b"\1" else 0
        ),
    ):
        with contextlib.suppress(*refused):
            decode(start + data)
