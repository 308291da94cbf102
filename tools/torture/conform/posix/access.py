"""Who may do what: permission bits of files and directories, owners, sticky directories, set-id bits."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import product

from tools.torture.conform.posix.rules import (
    CLASSES,
    GROUP,
    OWNER,
    STRANGER,
    USERS,
    Call,
    Rule,
    has,
    needed,
    only,
    rule,
)

R, W, X = 4, 2, 1
FILE = "XBD 4.7 File Access Permissions"
DIRECTORY = "XBD 4.7 File Access Permissions; XBD 4.16 Pathname Resolution"
EPOCH = (1_000_000_000, 5)
OMIT = (0, (1 << 30) - 2)  # UTIME_OMIT
NOW = (0, (1 << 30) - 1)  # UTIME_NOW

# What is done to a file, and the bits it takes.
ON_FILES: tuple[tuple[str, Call, int], ...] = (
    ("open-read", ("open", "f", os.O_RDONLY), R),
    ("open-write", ("open", "f", os.O_WRONLY), W),
    ("open-both", ("open", "f", os.O_RDWR), R | W),
    ("open-truncate", ("open", "f", os.O_WRONLY | os.O_TRUNC), W),
    ("open-read-truncate", ("open", "f", os.O_RDONLY | os.O_TRUNC), W | R),
    ("truncate", ("truncate", "f", 1), W),
    ("getxattr", ("getxattr", "f", "user.a"), R),
    ("setxattr", ("setxattr", "f", "user.b", b"2"), W),
    ("removexattr", ("removexattr", "f", "user.a"), W),
)

# What is done in directory ``d``, and the bits of the directory it takes. There are files ``f`` and ``g`` in it, an
# empty directory ``e``, a symbolic link ``s``; beside it a directory ``o`` for all, with a file ``f``.
IN_DIRECTORIES: tuple[tuple[str, Call, int], ...] = (
    ("list", ("list", "d"), R),
    ("chdir", ("chdir", "d"), X),
    ("stat", ("lstat", "d/f"), X),
    ("stat-missing", ("lstat", "d/missing"), X),
    ("open", ("open", "d/f", os.O_RDWR), X),
    ("open-create-there", ("open", "d/f", os.O_RDWR | os.O_CREAT), X),
    ("readlink", ("readlink", "d/s"), X),
    ("truncate", ("truncate", "d/f", 0), X),
    ("touch", ("touch", "d/f"), X),
    ("getxattr", ("listxattr", "d/f"), X),
    ("list-below", ("list", "d/e"), X),
    ("link-out", ("link", "d/f", "o/l"), X),
    ("create", ("open", "d/n", os.O_WRONLY | os.O_CREAT), W | X),
    ("mkdir", ("mkdir", "d/n"), W | X),
    ("mkfifo", ("mkfifo", "d/n"), W | X),
    ("mknod", ("mknod-file", "d/n"), W | X),
    ("symlink", ("symlink", "x", "d/n"), W | X),
    ("link-in", ("link", "o/f", "d/n"), W | X),
    ("unlink", ("unlink", "d/f"), W | X),
    ("rmdir", ("rmdir", "d/e"), W | X),
    ("rename-out", ("rename", "d/f", "o/n"), W | X),
    ("rename-in", ("rename", "o/f", "d/n"), W | X),
    ("rename-over", ("rename", "o/f", "d/f"), W | X),
    ("rename-within", ("rename", "d/f", "d/n"), W | X),
    ("rename-noreplace", ("rename2", "d/f", "d/n", 1), W | X),
    ("exchange", ("rename2", "d/f", "d/g", 2), W | X),
)


def files() -> Iterator[Rule]:
    """Every class of users with every set of bits; the other classes have exactly the bits this one has not."""
    setup: tuple[Call, ...]
    for who, bits, (name, call, need) in product(USERS, range(8), ON_FILES):
        mode = only(who, bits)
        setup = (
            ("file", "f", 0o600, OWNER, GROUP, b"text"),
            ("setxattr", "f", "user.a", b"1"),
            ("chmod", "f", mode),
        )
        want = ... if has(mode, who, need) else "EACCES"
        yield rule(f"file-{name}-{who}-{mode:03o}", FILE, call, want, who=who, setup=setup)
    for who, bits, need in product(USERS, range(8), range(8)):
        mode = only(who, bits)
        allowed = has(mode, who, need & ~X) and (
            has(mode, who, need & X) if who != "root" else not need & X or bool(mode & 0o111)
        )
        setup = (("file", "f", mode, OWNER, GROUP),)
        want = ... if allowed else "EACCES"
        name = f"access-{need}-{who}-{mode:03o}"
        yield rule(name, "access()", ("access", "f", need), want, who=who, setup=setup)


def directories() -> Iterator[Rule]:
    """The same for directories, with what takes search and write permission in them."""
    for who, bits, (name, call, need) in product(USERS, range(8), IN_DIRECTORIES):
        mode = only(who, bits)
        setup: tuple[Call, ...] = (
            ("dir", "d", 0o755, OWNER, GROUP), ("dir", "d/e", 0o777, OWNER, GROUP), ("symlink", "f", "d/s"),
            ("file", "d/f", 0o666, USERS[who].uid, GROUP), ("file", "d/g", 0o666, USERS[who].uid, GROUP),
            ("dir", "o", 0o777), ("file", "o/f", 0o666, USERS[who].uid, GROUP), ("chmod", "d", mode),
        )  # fmt: skip
        setup = needed(setup, call, "d", "o")
        want = ... if has(mode, who, need) else "EACCES"
        if want is ... and name == "stat-missing":
            want = "ENOENT"
        yield rule(f"in-{name}-{who}-{mode:03o}", DIRECTORY, call, want, who=who, setup=setup)


def owners() -> Iterator[Rule]:
    """What only the owner may do, or nobody but root, however open the file is."""
    setup: tuple[Call, ...]
    setup = (("file", "f", 0o666, OWNER, GROUP, b"x"), ("dir", "d", 0o777, OWNER, GROUP))
    for who, path in product(USERS, "fd"):
        mine = who in ("root", "owner")
        is_root = who == "root"
        ok = ... if mine else "EPERM"
        up = ... if is_root else "EPERM"
        rows: tuple[tuple[str, str, Call, object], ...] = (
            ("chmod", "chmod()", ("chmod", path, 0o640), ok),
            ("chown-away", "chown()", ("chown", path, STRANGER, -1), up),
            ("chown-to-itself", "chown()", ("chown", path, OWNER, GROUP), ok),
            ("chgrp-to-its-own", "chown()", ("chown", path, -1, GROUP), ok),
            ("chgrp-to-a-strange-group", "chown()", ("chown", path, -1, STRANGER), up),
            ("set-times", "futimens()", ("utimens", path, EPOCH, EPOCH), ok),
            ("set-one-time", "futimens()", ("utimens", path, EPOCH, OMIT), ok),
            ("set-one-now", "futimens()", ("utimens", path, NOW, OMIT), ok),
            ("set-both-now", "futimens()", ("utimens", path, NOW, NOW), ...),
            ("set-now", "futimens()", ("touch", path), ...),
            ("set-nothing", "futimens()", ("utimens", path, OMIT, OMIT), ...),
            ("trusted", "xattr(7)", ("setxattr", path, "trusted.a", b"1"), up),
        )  # fmt: skip
        for name, why, call, want in rows:
            yield rule(f"{name}-{path}-{who}", why, call, want, who=who, setup=setup)
    closed = (("file", "f", 0o444, OWNER, GROUP),)
    for who in USERS:
        mine = who in ("root", "owner")
        yield rule(f"set-now-unwritable-{who}", "futimens()", ("touch", "f"), ... if mine else "EACCES",
                   who=who, setup=closed)  # fmt: skip
    for who, group in (("owner", GROUP), ("owner", STRANGER), ("root", STRANGER)):
        setup = (("file", "f", 0o755, OWNER, group),)
        kept = who == "root" or group == GROUP
        yield rule(
            f"chmod-setgid-{who}-{group}", "chmod(): group not the caller's", ("chmod", "f", 0o2755), ...,
            who=who, setup=setup, then=((("mode", "f"), 0o2755 if kept else 0o755),),
        )  # fmt: skip


STICKY: tuple[tuple[str, Call, bool], ...] = (
    ("unlink", ("unlink", "d/f"), True),
    ("rmdir", ("rmdir", "d/e"), True),
    ("rename-out", ("rename", "d/f", "o/n"), True),
    ("rename-directory-out", ("rename", "d/e", "o/n"), True),
    ("rename-within", ("rename", "d/f", "d/n"), True),
    ("rename-over", ("rename", "o/f", "d/f"), True),
    ("exchange", ("rename2", "o/f", "d/f", 2), True),
    ("rename-in", ("rename", "o/f", "d/n"), False),
    ("create", ("open", "d/n", os.O_WRONLY | os.O_CREAT), False),
    ("link", ("link", "o/f", "d/n"), False),
)


def sticky() -> Iterator[Rule]:
    """In a sticky directory names are removed by the owner of the file, of the directory, or root alone."""
    owned = {"mine": None, "theirs": STRANGER + 1}
    for who, (whose_dir, whose_file), (name, call, removes) in product(
        USERS, product(owned, owned), STICKY
    ):
        uid = USERS[who].uid
        above, below = owned[whose_dir] or uid, owned[whose_file] or uid
        setup = (
            ("dir", "d", 0o1777, above, GROUP), ("file", "d/f", 0o666, below, GROUP), ("dir", "d/e", 0o777,
            below, GROUP),
            ("dir", "o", 0o777), ("file", "o/f", 0o666, uid, GROUP),
        )  # fmt: skip
        allowed = who == "root" or not removes or uid in (above, below)
        yield rule(f"sticky-{name}-{who}-{whose_dir}-{whose_file}", "XSI: XBD 4.3 Directory Protection", call,
                   ... if allowed else "EPERM|EACCES", who=who, setup=setup)  # fmt: skip


def set_ids() -> Iterator[Rule]:
    """Set-id bits go when an unprivileged user changes a file, and when anybody gives it away."""
    setup: tuple[Call, ...]
    page = "write(), truncate(), chown(): clearing of S_ISUID and S_ISGID"
    changes: tuple[tuple[str, tuple[Call, ...]], ...] = (
        ("write", (("open", "f", os.O_WRONLY), ("write", "@0", b"y"))),
        ("append", (("open", "f", os.O_WRONLY | os.O_APPEND), ("write", "@0", b"y"))),
        ("truncate", (("truncate", "f", 1),)),
        ("ftruncate", (("open", "f", os.O_WRONLY), ("ftruncate", "@0", 1))),
        ("extend", (("truncate", "f", 100),)),
        ("open-truncate", (("open", "f", os.O_WRONLY | os.O_TRUNC),)),
        ("chgrp", (("chown", "f", -1, GROUP),)),
        ("chown-same", (("chown", "f", OWNER, GROUP),)),
    )
    for mode, (name, calls), who in product(
        (0o4755, 0o2755, 0o6755, 0o4644, 0o755), changes, ("owner", "root")
    ):
        setup = (("file", "f", mode, OWNER, GROUP, b"text"),)
        # What root writes keeps the bits on ext4, and drops them here: fsmount/killpriv.py
        open_to_all = who == "root" and not name.startswith("ch")
        then = () if open_to_all else ((("mode", "f"), mode & 0o777),)
        yield rule(
            f"set-id-{name}-{mode:o}-{who}", page, calls[0], ..., *calls[1:], who=who, setup=setup, then=then
        )  # fmt: skip
    for who in USERS:
        setup = (("dir", "d", 0o2777, OWNER, GROUP),)
        inside = who in ("root", "owner", "member", "mate")
        yield rule(f"setgid-directory-file-{who}", "open(): group of a new file", ("open", "d/f",
                   os.O_WRONLY | os.O_CREAT, 0o644),
                   ..., who=who, setup=setup, then=((("gid", "d/f"), GROUP), (("mode", "d/f"), 0o644)))  # fmt: skip
        yield rule(f"setgid-directory-setgid-file-{who}", "open(): S_ISGID of a strange group",
                   ("open", "d/f", os.O_WRONLY | os.O_CREAT, 0o2755), ..., who=who, setup=setup,
                   then=((("gid", "d/f"), GROUP), (("mode", "d/f"), 0o2755 if inside else 0o755)))  # fmt: skip
        yield rule(f"setgid-directory-directory-{who}", "mkdir(): group of a new directory", ("mkdir",
                   "d/e", 0o755), ...,
                   who=who, setup=setup, then=((("gid", "d/e"), GROUP), (("mode", "d/e"), 0o2755)))  # fmt: skip
        yield rule(f"setgid-directory-link-{who}", "symlink(): group of a new link", ("symlink", "x", "d/s"), ...,
                   who=who, setup=setup, then=((("gid", "d/s"), GROUP),))  # fmt: skip
        yield rule(f"setgid-directory-fifo-{who}", "mkfifo(): group of a new fifo", ("mkfifo", "d/p"), ...,
                   who=who, setup=setup, then=((("gid", "d/p"), GROUP),))  # fmt: skip
        plain = (("dir", "d", 0o777, OWNER, GROUP),)
        yield rule(f"new-file-ids-{who}", "open(): owner and group of a new file", ("open", "d/f",
                   os.O_WRONLY | os.O_CREAT),
                   ..., who=who, setup=plain, then=((("ids", "d/f"), USERS[who][:2]),))  # fmt: skip
        yield rule(f"new-directory-ids-{who}", "mkdir(): owner and group of a new directory", ("mkdir", "d/e"),
                   ..., who=who, setup=plain, then=((("ids", "d/e"), USERS[who][:2]),))  # fmt: skip


def umasks() -> Iterator[Rule]:
    """The creation mask takes bits from what is made, and from nothing else."""
    made: tuple[tuple[str, Call, int], ...] = (
        ("open", ("open", "n", os.O_WRONLY | os.O_CREAT, 0o777), 0o777),
        ("open-666", ("open", "n", os.O_WRONLY | os.O_CREAT, 0o666), 0o666),
        ("mkdir", ("mkdir", "n", 0o777), 0o777),
        ("mkdir-sticky", ("mkdir", "n", 0o1777), 0o1777),
        ("mkfifo", ("mkfifo", "n", 0o666), 0o666),
        ("mknod", ("mknod-file", "n", 0o666), 0o666),
    )
    for mask, (name, call, mode) in product((0, 0o22, 0o27, 0o77, 0o777), made):
        yield rule(
            f"umask-{mask:03o}-{name}",
            "umask()",
            ("umask", mask),
            ...,
            call,
            then=((("mode", "n"), mode & ~mask),),
        )
    yield rule("umask-symlink", "symlink(): mode unspecified; 0777 on Linux", ("umask", 0o777), ...,
               ("symlink", "x", "n"),
               then=((("mode", "n"), 0o777), (("type", "n"), stat.S_IFLNK)))  # fmt: skip
    yield rule("umask-chmod", "chmod()", ("umask", 0o777), ..., ("chmod", "f", 0o4755), setup=(("file", "f", 0o600),),
               then=((("mode", "f"), 0o4755),))  # fmt: skip


def prefixes() -> Iterator[Rule]:
    """A directory on the way that may not be searched."""
    ways: tuple[Call, ...] = (
        ("lstat", "d/e/f"), ("open", "d/e/f", os.O_RDONLY), ("open", "d/e/n", os.O_CREAT | os.O_WRONLY),
        ("mkdir", "d/e/n"), ("rmdir", "d/e/e"), ("unlink", "d/e/f"), ("rename", "d/e/f", "d/e/n"),
        ("rename", "o", "d/e/n"),
        ("link", "d/e/f", "n"), ("link", "o", "d/e/n"), ("symlink", "x", "d/e/n"), ("readlink", "d/e/s"),
        ("mkfifo", "d/e/n"),
        ("chmod", "d/e/f", 0o600), ("chown", "d/e/f", -1, -1), ("truncate", "d/e/f", 0), ("touch", "d/e/f"),
        ("list", "d/e"), ("chdir", "d/e"), ("getxattr", "d/e/f", "user.a"), ("statvfs", "d/e/f"), ("lstat", "way/f"),
    )  # fmt: skip
    for who, call in product(CLASSES, ways):
        setup = (
            ("dir", "d", 0o777, OWNER, GROUP), ("dir", "d/e", 0o777), ("file", "d/e/f", 0o666), ("dir", "d/e/e", 0o777),
            ("symlink", "x", "d/e/s"), ("file", "o", 0o666), ("symlink", "d/e", "way"), ("chmod", "d",
            only(who, R | W)),
            ("chmod", ".", 0o777),
        )  # fmt: skip
        yield rule(
            f"no-search-{'-'.join(map(str, call))}-{who}",
            DIRECTORY,
            call,
            "EACCES",
            who=who,
            setup=setup,
        )


def rules() -> Iterator[Rule]:
    """All of them."""
    for part in (files, directories, owners, sticky, set_ids, umasks, prefixes):
        yield from part()
