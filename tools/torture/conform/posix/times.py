"""Which times each call moves, and which it must not: XBD 4.12 File Times Update.

The mount is used as ``noatime`` file systems are: reading moves no time (README), so "a" stands only where a time is
set.  Renaming marks the file itself on every Linux file system, which POSIX allows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from tools.torture.conform.posix.rules import Call, Rule, rule

PAGE = "XBD 4.12 File Times Update"
EPOCH, LATER = (1_000_000_000, 5), (1_600_000_000, 123_456_789)
OMIT = (0, (1 << 30) - 2)
NOW = (0, (1 << 30) - 1)

SETUP: tuple[Call, ...] = (
    ("dir", "d"), ("file", "d/f", 0o644, 0, 0, b"text"), ("file", "d/g", 0o644, 0, 0, b"other"),
    ("hardlink", "d/f", "d/h"),
    ("dir", "d/e"), ("dir", "d/full"), ("file", "d/full/x", 0o644), ("symlink", "f", "d/s"), ("fifo",
    "d/p"), ("dir", "t"),
    ("setxattr", "d/f", "user.a", b"1"),
)  # fmt: skip

ROWS: tuple[tuple[str, tuple[Call, ...], dict[str, str]], ...] = (
    # names: the directory is changed, and the file whose links change
    ("create", (("open", "d/n", os.O_WRONLY | os.O_CREAT),), {"d": "mc", "d/f": ""}),
    ("create-there", (("open", "d/f", os.O_WRONLY | os.O_CREAT),), {"d": "", "d/f": ""}),
    ("create-exclusive-refused", (("open", "d/f", os.O_WRONLY | os.O_CREAT | os.O_EXCL),), {"d": "", "d/f": ""}),
    ("mkdir", (("mkdir", "d/n"),), {"d": "mc", ".": ""}),
    ("mkdir-refused", (("mkdir", "d/e"),), {"d": "", "d/e": ""}),
    ("mkfifo", (("mkfifo", "d/n"),), {"d": "mc"}),
    ("mknod", (("mknod-file", "d/n"),), {"d": "mc"}),
    ("symlink", (("symlink", "x", "d/n"),), {"d": "mc"}),
    ("link", (("link", "d/f", "t/n"),), {"d": "", "d/f": "c", "t": "mc", "d/h": "c"}),
    ("link-refused", (("link", "d/f", "d/g"),), {"d": "", "d/f": "", "d/g": ""}),
    ("unlink", (("unlink", "d/h"),), {"d": "mc", "d/f": "c", "d/g": ""}),
    ("unlink-refused", (("unlink", "d/e"),), {"d": "", "d/e": ""}),
    ("rmdir", (("rmdir", "d/e"),), {"d": "mc", ".": ""}),
    ("rmdir-refused", (("rmdir", "d/full"),), {"d": "", "d/full": ""}),
    ("rename", (("rename", "d/g", "d/n"),), {"d": "mc", "d/g>d/n": "c", "d/f": ""}),
    ("rename-apart", (("rename", "d/g", "t/n"),), {"d": "mc", "t": "mc", "d/g>t/n": "c", ".": ""}),
    ("rename-over", (("rename", "d/g", "d/f"),), {"d": "mc", "d/g>d/f": "c", "d/h": "c"}),
    ("rename-same", (("rename", "d/f", "d/h"),), {"d": "", "d/f": "", "d/h": ""}),
    ("rename-refused", (("rename", "d/f", "d/e"),), {"d": "", "d/f": "", "d/e": ""}),
    ("rename-directory", (("rename", "d/full", "d/n"),), {"d": "mc", "d/full>d/n": "c"}),
    ("rename-directory-apart", (("rename", "d/full", "t/n"),), {"d": "mc", "t": "mc", "d/full/x>t/n/x": ""}),
    ("exchange", (("rename2", "d/f", "t", 2),), {"d": "mc", ".": "mc", "d/h": "c"}),
    # attributes: only the change time
    ("chmod", (("chmod", "d/f", 0o600),), {"d": "", "d/f": "c"}),
    ("chmod-same", (("chmod", "d/f", 0o644),), {"d/f": "c"}),
    ("chmod-directory", (("chmod", "d/e", 0o700),), {"d": "", "d/e": "c"}),
    ("fchmod", (("open", "d/f", os.O_RDONLY), ("fchmod", "@0", 0o600)), {"d/f": "c"}),
    ("chown", (("chown", "d/f", 5, 5),), {"d": "", "d/f": "c"}),
    ("chown-same", (("chown", "d/f", 0, 0),), {"d/f": "c"}),
    ("chown-link", (("lchown", "d/s", 5, 5),), {"d/s": "c", "d/f": ""}),
    ("chown-fifo", (("chown", "d/p", 5, 5),), {"d/p": "c"}),
    ("setxattr", (("setxattr", "d/f", "user.b", b"1"),), {"d": "", "d/f": "c"}),
    ("setxattr-directory", (("setxattr", "d/e", "user.b", b"1"),), {"d": "", "d/e": "c"}),
    ("removexattr", (("removexattr", "d/f", "user.a"),), {"d/f": "c"}),
    ("removexattr-refused", (("removexattr", "d/f", "user.none"),), {"d/f": ""}),
    ("utimens", (("utimens", "d/f", EPOCH, LATER),), {"d": "", "d/f": "amc"}),
    ("utimens-now", (("touch", "d/f"),), {"d": "", "d/f": "amc"}),
    ("utimens-atime", (("utimens", "d/f", EPOCH, OMIT),), {"d/f": "ac"}),
    ("utimens-atime-now", (("utimens", "d/f", NOW, OMIT),), {"d/f": "ac"}),
    ("utimens-mtime", (("utimens", "d/f", OMIT, EPOCH),), {"d/f": "mc"}),
    ("utimens-mtime-now", (("utimens", "d/f", OMIT, NOW),), {"d/f": "mc"}),
    ("utimens-none", (("utimens", "d/f", OMIT, OMIT),), {"d/f": ""}),
    ("utimens-directory", (("utimens", "d/e", EPOCH, LATER),), {"d": "", "d/e": "amc"}),
    ("utimens-fifo", (("utimens", "d/p", EPOCH, LATER),), {"d/p": "amc"}),
    # content
    ("write", (("open", "d/f", os.O_WRONLY), ("write", "@0", b"x")), {"d": "", "d/f": "mc"}),
    ("write-fsync", (("open", "d/f", os.O_WRONLY), ("write", "@0", b"x"), ("fsync", "@0")), {"d/f": "mc"}),
    ("write-append", (("open", "d/f", os.O_WRONLY | os.O_APPEND), ("write", "@0", b"x")), {"d/f": "mc"}),
    ("write-nothing", (("open", "d/f", os.O_WRONLY), ("write", "@0", b"")), {"d/f": ""}),
    ("write-far", (("open", "d/f", os.O_WRONLY), ("pwrite", "@0", b"x", 1 << 20)), {"d/f": "mc"}),
    ("open-write-only", (("open", "d/f", os.O_WRONLY),), {"d/f": ""}),
    ("open-truncate", (("open", "d/f", os.O_WRONLY | os.O_TRUNC),), {"d": "", "d/f": "mc"}),
    ("open-truncate-empty", (("open", "d/full/x", os.O_WRONLY | os.O_TRUNC),), {"d/full": "", "d/full/x": "mc"}),
    ("truncate", (("truncate", "d/f", 2),), {"d": "", "d/f": "mc"}),
    ("truncate-up", (("truncate", "d/f", 200),), {"d/f": "mc"}),
    ("ftruncate", (("open", "d/f", os.O_WRONLY), ("ftruncate", "@0", 2)), {"d/f": "mc"}),
    ("ftruncate-same", (("open", "d/f", os.O_WRONLY), ("ftruncate", "@0", 4)), {"d/f": "mc"}),
    # looking moves nothing
    ("read", (("open", "d/f", os.O_RDONLY), ("read", "@0", 9)), {"d": "", "d/f": ""}),
    ("stat", (("stat", "d/f"),), {"d": "", "d/f": ""}),
    ("list", (("list", "d"),), {"d": ""}),
    ("readlink", (("readlink", "d/s"),), {"d/s": "", "d": ""}),
    ("getxattr", (("getxattr", "d/f", "user.a"),), {"d/f": ""}),
    ("access", (("access", "d/f", 4),), {"d/f": ""}),
    ("fsync", (("open", "d/f", os.O_WRONLY), ("fsync", "@0")), {"d/f": ""}),
    ("stat-through-link", (("stat", "d/s"),), {"d/s": "", "d/f": ""}),
)  # fmt: skip


def rules() -> Iterator[Rule]:
    """All of them, and the values that times take."""
    for name, calls, moved in ROWS:
        refused = {"create-exclusive-refused": "EEXIST", "mkdir-refused": "EEXIST", "link-refused": "EEXIST",
                   "unlink-refused": "EISDIR|EPERM", "rmdir-refused": "ENOTEMPTY|EEXIST", "rename-refused": "EISDIR",
                   "removexattr-refused": "ENODATA"}  # fmt: skip
        yield rule(
            f"times-{name}",
            PAGE,
            calls[0],
            refused.get(name, ...),
            *calls[1:],
            setup=SETUP,
            moved=moved,
        )
    for path in ("d/f", "d/e", "d/p"):
        for when in ((0, 0), (-1_000_000_000, 7), (1 << 31, 999_999_999), (4_294_967_296, 1)):
            stamp = when[0] * 10**9 + when[1]
            yield rule(f"times-value-{path}-{when[0]}", "futimens()", ("utimens", path, when, when), ..., setup=SETUP,
                       then=((("mtime", path), stamp), (("atime", path), stamp)))  # fmt: skip
    late = LATER[0] * 10**9 + LATER[1]
    yield rule("times-kept-after-write", "futimens() after write(): the time set stays",
               ("open", "d/f", os.O_WRONLY), ..., ("write", "@0", b"x"), ("utimens", "d/f", LATER, LATER),
               ("fsync", "@0"),
               setup=SETUP, then=((("mtime", "d/f"), late),))  # fmt: skip
    yield rule(
        "times-moved-by-write-after-utimens", "write(): whatever the time was set to just before",
        ("open", "d/f", os.O_WRONLY), ..., ("write", "@0", b"x"), ("fsync", "@0"),
        setup=(*SETUP, ("utimens", "d/f", LATER, LATER)), moved={"d/f": "mc"},
    )  # fmt: skip
    yield rule("times-kept-by-rename", "rename(): no data modified", ("utimens", "d/f", LATER, LATER), ...,
               ("rename", "d/f", "d/n"),
               setup=SETUP, then=((("mtime", "d/n"), late),))  # fmt: skip
    yield rule("times-kept-by-chmod", "chmod()", ("utimens", "d/f", LATER, LATER), ..., ("chmod", "d/f",
               0o600), ("link", "d/f", "d/n"),
               setup=SETUP, then=((("mtime", "d/n"), late), (("atime", "d/n"), late)))  # fmt: skip
    for bad in ((0, 1_000_000_000), (0, -1)):
        yield rule(
            f"times-bad-{bad[1]}",
            "futimens(): EINVAL",
            ("utimens", "d/f", bad, bad),
            "EINVAL",
            setup=SETUP,
        )
