"""The source tree of the demonstration: real files, every awkward thing a tree can hold, edits."""

from __future__ import annotations

import contextlib
import os
import random
import stat
import sysconfig
from pathlib import Path

from tools.demolib.machinefiles import Budget, take

FILES = 2500
BYTES = 60_000_000
LARGEST = 400_000
MACHINE = (sysconfig.get_path("stdlib"), "/usr/include", "/usr/share/perl", "/usr/share/doc")

# An ordinary second owner; root only may give files away.
OTHER_OWNER = (1234, 5678)
SPARSE_SIZE = 4 << 20
# Names that some program somewhere gets wrong.
ODD_NAMES = (
    b"with space", b" leading and trailing ", b"-rf", b"new\nline", b"tab\there", b"back\\slash",
    b"'quotes\"", b"star*[a-z]?", b"latin1-\xe4\xf6\xfc", b"not-utf8-\xff\xfe\x80", b"\x01\x7f",
    "umlaut-äöü-漢字-😀".encode(), b"x" * 255, "ü".encode() * 127, b"~", b"...", b"#hash#",
)  # fmt: skip


def make(root: Path, scale: float) -> tuple[int, int]:
    """Make the tree of day 1 at `root`; files and bytes of the ordinary part."""
    budget = Budget(max(40, round(FILES * scale)), round(BYTES * scale), LARGEST)
    root.mkdir(parents=True)
    taken = take([Path(folder) for folder in MACHINE], root, budget)
    make_awkward(root / "awkward")
    return taken


def make_awkward(place: Path) -> None:
    """Everything that a restore must bring back and an ordinary tree seldom has."""
    place.mkdir()
    odd = os.fsencode(place / "names")
    os.mkdir(odd)
    for odd_name in ODD_NAMES:
        _write(os.path.join(odd, odd_name), b"this file is called " + odd_name)
    deep = place / "deep"
    for level in range(30):
        deep = deep / f"level-{level:02}"
    deep.mkdir(parents=True)
    (deep / "bottom").write_text("thirty levels down\n")
    (place / "empty directory").mkdir()
    (place / "empty").touch()
    _modes(place / "modes")
    _links(place / "links")
    _attributes(place / "xattrs")
    with (place / "sparse").open("wb") as file:
        for offset in (0, 3 << 20, SPARSE_SIZE - 5000):
            file.seek(offset)
            file.write(b"island at %d " % offset * 20)
        file.truncate(SPARSE_SIZE)
    os.mkfifo(place / "fifo", 0o640)
    if os.geteuid() == 0:
        os.chown(place / "empty", *OTHER_OWNER)
        os.lchown(place / "links" / "dangling", *OTHER_OWNER)
        # A container's root may be forbidden to make devices.
        with contextlib.suppress(PermissionError):
            os.mknod(place / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    # Times before 1970, after 2038, and to the nanosecond.
    for name, when in (("empty", -1_000_000_001), ("sparse", (1 << 32) * 10**9 + 123_456_789)):
        os.utime(place / name, ns=(when, when))


def edit(root: Path, day: int, rng: random.Random) -> dict[str, int]:
    """A day's work on the tree: how many files were changed, removed, added and renamed."""
    files = sorted(
        path
        for path in _ordinary_files(root)
        if path.lstat().st_size and root / "awkward" not in path.parents
    )
    changed = rng.sample(files, max(1, len(files) * 3 // 100))
    for path in changed:
        content = path.read_bytes()
        at = rng.randrange(len(content) + 1)
        path.write_bytes(content[:at] + b"\n# changed on day %d\n" % day + content[at:])
    others = sorted(set(files) - set(changed))
    removed = rng.sample(others, max(1, len(others) // 100))
    for path in removed:
        path.unlink()
    for number in range(len(removed)):
        added = root / f"added-{day}" / f"file-{number}.txt"
        added.parent.mkdir(exist_ok=True)
        added.write_text(f"file {number} of day {day}\n" * rng.randrange(1, 400))
    folders = sorted({path.parent for path in set(others) - set(removed)} - {root})
    renamed = rng.choice(folders)
    renamed.rename(renamed.with_name(f"{renamed.name}-{day}"))
    _edit_awkward(root / "awkward", day)
    return {
        "changed": len(changed), "removed": len(removed), "added": len(removed), "renamed": 1,
    }  # fmt: skip


def _ordinary_files(root: Path) -> list[Path]:
    return [
        Path(folder, name)
        for folder, _, names in os.walk(root)
        for name in names
        if stat.S_ISREG(os.lstat(os.path.join(folder, name)).st_mode)
    ]


def _edit_awkward(place: Path, day: int) -> None:
    """Changes of the kinds that a change of content is not."""
    (place / "modes" / "0644").chmod(0o644 if day % 2 else 0o600)
    os.setxattr(place / "xattrs" / "file", "user.day", b"%d" % day)
    os.removexattr(place / "xattrs" / "file", f"user.until-{day}")
    (place / "links" / "symlink").unlink()
    (place / "links" / "symlink").symlink_to(f"target of day {day}")
    # One name leaves its file, and a new pair comes. The name does not come back on the same day
    # as another file: rsync --inplace would write it through the link that it still has in the
    # copy, into the other names (its manual says so).
    (place / "links" / f"one of four, leaves on day {day}").unlink()
    first = place / "links" / f"new on day {day}"
    first.write_text(f"two names since day {day}\n")
    (place / "links" / f"new on day {day}, too").hardlink_to(first)
    with (place / "sparse").open("r+b") as file:
        file.seek(day << 20)
        file.write(b"written on day %d " % day * 50)
    # A file becomes a directory.
    victim = os.path.join(os.fsencode(place), b"names", ODD_NAMES[day])
    os.unlink(victim)
    os.mkdir(victim)
    _write(os.path.join(victim, b"inside"), b"was a file until day %d" % day)


def _modes(place: Path) -> None:
    place.mkdir()
    for mode in (0o000, 0o400, 0o600, 0o644, 0o755, 0o777, 0o4755, 0o2755, 0o6711):
        # Root reads what nobody may; others cannot copy a file that they may not read.
        if mode or os.geteuid() == 0:
            path = place / f"{mode:04o}"
            path.write_text(f"mode {mode:04o}\n")
            path.chmod(mode)
    for mode in (0o700, 0o1777, 0o2775, 0o500):
        path = place / f"directory-{mode:04o}"
        path.mkdir()
        (path / "member").touch()
        path.chmod(mode)


def _links(place: Path) -> None:
    place.mkdir()
    first = place / "one of four"
    first.write_text("four names, one file\n")
    for name in ("one of four, too", *(f"one of four, leaves on day {day}" for day in (2, 3))):
        (place / name).hardlink_to(first)
    (place / "symlink").symlink_to("one of four")
    (place / "dangling").symlink_to("nowhere/at all")
    (place / "absolute").symlink_to("/etc/hostname")
    (place / "to a directory").symlink_to("../deep", target_is_directory=True)
    (place / "itself").symlink_to("itself")
    os.symlink(b"t" * 1000 + b"\xff\n", os.fsencode(place / "long target"))


def _attributes(place: Path) -> None:
    place.mkdir()
    (place / "file").write_text("has extended attributes\n")
    values = {
        "user.text": "ümlaut".encode(), "user.binary": bytes(range(256)), "user.empty": b"",
        "user.long": b"v" * 2000, "user.until-2": b"x", "user.until-3": b"y",
    }  # fmt: skip
    for name, value in values.items():
        os.setxattr(place / "file", name, value)
    os.setxattr(place, "user.directory", b"directories have them too")


def _write(path: bytes, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
