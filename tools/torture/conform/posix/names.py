"""Making, linking, renaming and removing names: what each type of file answers, and what link counts become."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import product
from typing import Any

from tools.torture.conform.posix.rules import Call, Rule, rule

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
KINDS: dict[str, tuple[Call, ...]] = {
    "absent": (),
    "file": (("file", "%", 0o644, 0, 0, b"%"),),
    "empty": (("dir", "%"),),
    "full": (("dir", "%"), ("file", "%/x", 0o644)),
    "link": (("symlink", "nowhere", "%"),),
    "fifo": (("fifo", "%"),),
    "socket": (("socket", "%"),),
}
TYPES = {
    "file": stat.S_IFREG, "empty": stat.S_IFDIR, "full": stat.S_IFDIR, "link": stat.S_IFLNK, "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
}  # fmt: skip
DIRS = ("empty", "full")


def _of(kind: str, path: str) -> tuple[Call, ...]:
    return tuple(
        tuple(
            part.replace("%", path) if isinstance(part, str) else path.encode() if part == b"%" else part
            for part in call
        )
        for call in KINDS[kind]
    )  # fmt: skip


def _renamed(old: str, new: str, flags: int) -> Any:
    """What renaming one kind over another answers."""
    if old == "absent":
        return "ENOENT"
    if flags == EXCHANGE:
        return "ENOENT" if new == "absent" else ...
    if new == "absent":
        return ...
    if flags == NOREPLACE:
        return "EEXIST"
    if old in DIRS and new not in DIRS:
        return "ENOTDIR"
    if old not in DIRS and new in DIRS:
        return "EISDIR"
    return "ENOTEMPTY|EEXIST" if new == "full" else ...


def renames() -> Iterator[Rule]:
    """Every type over every type with every flag; what is left and where."""
    for old, new, flags, apart in product(KINDS, KINDS, (0, NOREPLACE, EXCHANGE), (False, True)):
        where = "t/b" if apart else "b"
        want = _renamed(old, new, flags)
        then: list[tuple[Call, Any]] = []
        if want is ... and flags != EXCHANGE:
            then = [(("exists", "a"), False), (("type", where), TYPES[old])]
        elif want is ...:
            then = [(("type", "a"), TYPES[new]), (("type", where), TYPES[old])]
        else:
            for path, kind in (("a", old), (where, new)):
                then.append((("exists", path), kind != "absent"))
        if apart and want is ...:
            moved = (old in DIRS) - (flags == EXCHANGE and new in DIRS)
            lost = flags != EXCHANGE and new in DIRS
            before = 2 + (new in DIRS)
            then.append((("nlink", "t"), before + moved - lost))
            then.append((("nlink", "."), 3 + (old in DIRS) - moved))
        setup = (*_of(old, "a"), ("dir", "t"), *_of(new, where))
        call = ("rename2", "a", where, flags) if flags else ("rename", "a", where)
        yield rule(f"rename-{old}-over-{new}-{flags}{'-apart' if apart else ''}", "rename(); renameat2(2)", call, want,
                   setup=setup, then=tuple(then))  # fmt: skip


def loops() -> Iterator[Rule]:
    """A directory cannot go into itself; names of one file; flags that are refused."""
    deep = (
        ("dir", "a"),
        ("dir", "a/b"),
        ("dir", "a/b/c"),
        ("file", "f", 0o644, 0, 0, b"f"),
        ("hardlink", "f", "g"),
        ("file", "h", 0o644),
    )
    rows: tuple[tuple[str, Call, Any, tuple[tuple[Call, Any], ...]], ...] = (
        ("into-itself", ("rename", "a", "a/n"), "EINVAL", ()),
        ("into-child", ("rename", "a", "a/b/n"), "EINVAL", ()),
        ("into-grandchild", ("rename", "a", "a/b/c/n"), "EINVAL", ()),
        ("onto-child", ("rename", "a", "a/b"), "EINVAL", ()),
        ("onto-parent", ("rename", "a/b/c", "a/b"), "ENOTEMPTY|EEXIST", ()),
        ("onto-grandparent", ("rename", "a/b/c", "a"), "ENOTEMPTY|EEXIST", ()),
        ("exchange-with-child", ("rename2", "a", "a/b", EXCHANGE), "EINVAL", ()),
        ("exchange-with-parent", ("rename2", "a/b", "a", EXCHANGE), "EINVAL", ()),
        ("file-onto-parent", ("rename", "a/b/c", "a/b/c/d"), "EINVAL", ()),
        ("same-name", ("rename", "f", "f"), ..., ((("nlink", "f"), 2),)),
        ("same-directory", ("rename", "a", "a"), ..., ((("exists", "a/b"), True),)),
        ("same-file", ("rename", "f", "g"), ..., ((("nlink", "f"), 2), (("same", "f", "g"), True))),
        ("same-file-noreplace", ("rename2", "f", "g", NOREPLACE), "EEXIST", ((("nlink", "f"), 2),)),
        ("same-file-exchange", ("rename2", "f", "g", EXCHANGE), ..., ((("nlink", "f"), 2),)),
        (
            "over-one-of-two",
            ("rename", "h", "g"),
            ...,
            ((("nlink", "f"), 1), (("content", "f"), b"f")),
        ),
        ("flags-both", ("rename2", "f", "h", NOREPLACE | EXCHANGE), "EINVAL", ()),
        ("flags-unknown", ("rename2", "f", "h", 8), "EINVAL", ()),
    )
    for name, call, want, then in rows:
        yield rule(f"rename-{name}", "rename(); renameat2(2)", call, want, setup=deep, then=then)
    yield rule("rename-whiteout", "renameat2(2)", ("rename2", "f", "n", WHITEOUT), ..., setup=deep,
               instead=("EINVAL", "no overlay's upper layer: README, what is promised"))  # fmt: skip


def removals() -> Iterator[Rule]:
    """unlink, rmdir and link of every type."""
    for kind in TYPES:
        setup = (*_of(kind, "a"), ("dir", "t"))
        is_dir = kind in DIRS
        yield rule(f"unlink-{kind}", "unlink()", ("unlink", "a"), "EISDIR|EPERM" if is_dir else ..., setup=setup,
                   then=((("exists", "a"), is_dir),))  # fmt: skip
        want: Any = "ENOTDIR" if not is_dir else "ENOTEMPTY|EEXIST" if kind == "full" else ...
        yield rule(
            f"rmdir-{kind}",
            "rmdir()",
            ("rmdir", "a"),
            want,
            setup=setup,
            then=((("exists", "a"), want is not ...),),
        )
        for target in ("b", "t/b"):
            counts = ((("nlink", "a"), 2), (("nlink", target), 2), (("same", "a", target), True))
            yield rule(f"link-{kind}-{target}", "link()", ("link", "a", target), "EPERM" if is_dir else ...,
                       setup=setup,
                       then=() if is_dir else counts)  # fmt: skip
        for there in TYPES:
            yield rule(f"link-over-{kind}-{there}", "link()", ("link", "f", "a"), "EEXIST",
                       setup=(*_of(kind, "a"), ("file", "f", 0o644)))  # fmt: skip
            break
        for make, call in (
            ("mkdir", ("mkdir", "a")),
            ("mkfifo", ("mkfifo", "a")),
            ("symlink", ("symlink", "x", "a")),
        ):
            yield rule(f"{make}-over-{kind}", f"{make}()", call, "EEXIST", setup=setup)
    linked = (("file", "f", 0o644), ("symlink", "f", "s"))
    yield rule("link-of-a-link", "linkat() without AT_SYMLINK_FOLLOW", ("link", "s", "n"), ..., setup=linked,
               then=((("type", "n"), stat.S_IFLNK), (("nlink", "s"), 2)))  # fmt: skip
    yield rule("link-through-a-link", "linkat() with AT_SYMLINK_FOLLOW", ("link-followed", "s", "n"), ..., setup=linked,
               then=((("type", "n"), stat.S_IFREG), (("nlink", "f"), 2)))  # fmt: skip


def counts() -> Iterator[Rule]:
    """Link counts, and where dot-dot leads."""
    tree = (("dir", "a"), ("dir", "b"), ("dir", "a/c"), ("file", "f", 0o644))
    yield rule(
        "nlink-mkdir",
        "mkdir()",
        ("mkdir", "b/n"),
        ...,
        setup=tree,
        then=((("nlink", "b"), 3), (("nlink", "b/n"), 2)),
    )
    yield rule(
        "nlink-rmdir",
        "rmdir()",
        ("rmdir", "a/c"),
        ...,
        setup=tree,
        then=((("nlink", "a"), 2), (("nlink", "."), 4)),
    )
    yield rule("nlink-rename", "rename()", ("rename", "a/c", "b/c"), ..., setup=tree,
               then=((("nlink", "a"), 2), (("nlink", "b"), 3), (("same", "b/c/..", "b"), True)))  # fmt: skip
    yield rule("nlink-exchange", "renameat2(2)", ("rename2", "a/c", "f", EXCHANGE), ..., setup=tree,
               then=((("nlink", "a"), 2), (("nlink", "."), 5), (("same", "f/..", "."), True)))  # fmt: skip
    yield rule(
        "nlink-unlinked-open",
        "unlink()",
        ("open", "f", os.O_RDONLY),
        0,
        ("unlink", "f"),
        ("fstat-nlink", "@0"),
        setup=tree,
    )
    yield rule(
        "nlink-removed-open",
        "rmdir()",
        ("open", "b", os.O_RDONLY),
        0,
        ("rmdir", "b"),
        ("fstat-nlink", "@0"),
        setup=tree,
    )
    many: tuple[Call, ...] = tuple(("hardlink", "f", f"l{number}") for number in range(40))
    yield rule(
        "nlink-many",
        "link()",
        ("unlink", "l7"),
        ...,
        setup=(("file", "f", 0o644), *many),
        then=((("nlink", "f"), 40),),
    )
    folders: tuple[Call, ...] = tuple(("dir", f"d/{number}") for number in range(40))
    yield rule(
        "nlink-directories",
        "mkdir()",
        ("rmdir", "d/7"),
        ...,
        setup=(("dir", "d"), *folders),
        then=((("nlink", "d"), 41),),
    )


def removed() -> Iterator[Rule]:
    """What can still be done with a directory that was removed while open, and a file that was unlinked."""
    opened: tuple[Call, ...] = (("open", "d", os.O_RDONLY), ("rmdir", "d"))
    setup = (("dir", "d"), ("file", "f", 0o644, 0, 0, b"text"))
    for name, call, want in (
        ("create", ("openat", "@0", "n", os.O_CREAT | os.O_WRONLY), "ENOENT"),
        ("mkdir", ("mkdirat", "@0", "n"), "ENOENT"),
        ("list", ("flist", "@0"), []),
        ("open-dot", ("openat", "@0", ".", os.O_RDONLY), "descriptor"),
    ):
        yield rule(
            f"removed-directory-{name}", "rmdir()", opened[0], want, opened[1], call, setup=setup
        )
    yield rule(
        "removed-directory-getcwd",
        "getcwd()",
        ("chdir", "d"),
        "ENOENT",
        ("rmdir", "../d"),
        ("getcwd",),
        setup=setup,
    )
    gone: tuple[Call, ...] = (("open", "f", os.O_RDWR), ("unlink", "f"))
    for name, calls, value in (
        ("read", (("pread", "@0", 9, 0),), b"text"),
        ("write", (("pwrite", "@0", b"more", 2), ("pread", "@0", 9, 0)), b"temore"),
        ("truncate", (("ftruncate", "@0", 2), ("pread", "@0", 9, 0)), b"te"),
        ("chmod", (("fchmod", "@0", 0o600), ("fsync", "@0"), ("fstat-nlink", "@0")), 0),
        (
            "name-again",
            (("open", "f", os.O_CREAT | os.O_EXCL | os.O_RDWR), ("pread", "@0", 9, 0)),
            b"text",
        ),
    ):
        yield rule(
            f"unlinked-file-{name}", "unlink()", gone[0], value, gone[1], *calls, setup=setup
        )
    yield rule("replaced-file-read", "rename()", ("open", "f", os.O_RDONLY), b"text", ("rename", "g", "f"),
               ("pread", "@0", 9, 0),
               setup=(*setup, ("file", "g", 0o644, 0, 0, b"new")), then=((("content", "f"), b"new"),))  # fmt: skip


def mounts() -> Iterator[Rule]:
    """Between file systems, and where one is mounted. ``%other%`` is a file elsewhere, ``%top%`` the root."""
    setup = (("file", "f", 0o644), ("dir", "d"))
    for name, call, want in (
        ("rename-out", ("rename", "f", "%other%"), "EXDEV"),
        ("rename-in", ("rename", "%other%", "n"), "EXDEV"),
        ("rename-directory", ("rename", "d", "%other%"), "EXDEV"),
        ("exchange", ("rename2", "f", "%other%", EXCHANGE), "EXDEV"),
        ("link-out", ("link", "f", "%other%-n"), "EXDEV"),
        ("link-in", ("link", "%other%", "n"), "EXDEV"),
        ("rmdir-mounted", ("rmdir", "%top%"), "EBUSY"),
        ("rename-mounted", ("rename", "%top%", "%top%-n"), "EBUSY|EXDEV"),
        ("rename-over-mounted", ("rename", "d", "%top%"), "EBUSY|EXDEV"),
    ):
        yield rule(f"mount-{name}", "EXDEV; EBUSY", call, want, setup=setup)


def rules() -> Iterator[Rule]:
    """All of them."""
    for part in (renames, loops, removals, counts, removed, mounts):
        yield from part()
