"""Opening, descriptors, sizes and offsets, special files, extended attributes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any

from tools.torture.conform.posix.rules import Call, Rule, rule

TIB = 1 << 40
FULL = b"0123456789"
SETUP: tuple[Call, ...] = (
    ("file", "f", 0o644, 0, 0, FULL), ("dir", "d"), ("symlink", "f", "s"), ("symlink", "nowhere", "dangling"),
    ("symlink", "d", "sd"), ("fifo", "p"), ("socket", "k"), ("char", "c"),
)  # fmt: skip
CREATE = os.O_CREAT | os.O_WRONLY
TMPFILE = getattr(os, "O_TMPFILE", 0)


def opens() -> Iterator[Rule]:
    """Flags of open()."""
    rows: tuple[tuple[str, Call, Any], ...] = (
        ("exclusive-file", ("open", "f", CREATE | os.O_EXCL), "EEXIST"),
        ("exclusive-link", ("open", "s", CREATE | os.O_EXCL), "EEXIST"),
        ("exclusive-dangling", ("open", "dangling", CREATE | os.O_EXCL), "EEXIST"),
        ("exclusive-directory", ("open", "d", CREATE | os.O_EXCL), "EEXIST"),
        ("create-directory", ("open", "d", CREATE), "EISDIR"),
        ("create-directory-read", ("open", "d", os.O_CREAT | os.O_RDONLY), "EISDIR"),
        ("write-directory", ("open", "d", os.O_WRONLY), "EISDIR"),
        ("both-directory", ("open", "d", os.O_RDWR), "EISDIR"),
        ("truncate-directory", ("open", "d", os.O_RDONLY | os.O_TRUNC), "EISDIR"),
        ("read-directory", ("open", "d", os.O_RDONLY), "descriptor"),
        ("directory-file", ("open", "f", os.O_RDONLY | os.O_DIRECTORY), "ENOTDIR"),
        ("directory-link", ("open", "sd", os.O_RDONLY | os.O_DIRECTORY), "descriptor"),
        (
            "directory-nofollow",
            ("open", "sd", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW),
            "ENOTDIR|ELOOP",
        ),
        ("directory-dangling", ("open", "dangling", os.O_RDONLY | os.O_DIRECTORY), "ENOENT"),
        ("nofollow-link", ("open", "s", os.O_RDONLY | os.O_NOFOLLOW), "ELOOP"),
        ("nofollow-dangling", ("open", "dangling", os.O_RDONLY | os.O_NOFOLLOW), "ELOOP"),
        ("nofollow-file", ("open", "f", os.O_RDONLY | os.O_NOFOLLOW), "descriptor"),
        ("path-link", ("open", "s", os.O_PATH | os.O_NOFOLLOW), "descriptor"),
        ("fifo-write", ("open", "p", os.O_WRONLY | os.O_NONBLOCK), "ENXIO"),
        ("fifo-read", ("open", "p", os.O_RDONLY | os.O_NONBLOCK), "descriptor"),
        ("fifo-both", ("open", "p", os.O_RDWR | os.O_NONBLOCK), "descriptor"),
        ("socket", ("open", "k", os.O_RDONLY), "ENXIO"),
        ("device-on-nodev", ("open", "c", os.O_RDONLY), "EACCES"),
        ("create-over-fifo", ("open", "p", os.O_CREAT | os.O_RDWR | os.O_NONBLOCK), "descriptor"),
        ("synchronous", ("open", "f", os.O_RDWR | os.O_SYNC), "descriptor"),
        ("noatime", ("open", "f", os.O_RDONLY | os.O_NOATIME), "descriptor"),
    )
    for name, call, want in rows:
        yield rule(f"open-{name}", "open()", call, want, setup=SETUP)
    yield rule(
        "open-truncate",
        "open()",
        ("open", "f", os.O_WRONLY | os.O_TRUNC),
        ...,
        setup=SETUP,
        then=((("size", "f"), 0),),
    )
    yield rule("open-truncate-read-only", "open(): unspecified; truncates on Linux", ("open", "f",
               os.O_RDONLY | os.O_TRUNC), ...,
               setup=SETUP, then=((("size", "f"), 0),))  # fmt: skip
    yield rule("open-truncate-fifo", "open(): O_TRUNC has no effect", ("open", "p",
               os.O_RDWR | os.O_TRUNC | os.O_NONBLOCK),
               "descriptor", setup=SETUP)  # fmt: skip
    yield rule("open-mode-0", "open(): the mode of a new file binds later opens", ("open", "n",
               os.O_CREAT | os.O_RDWR, 0), b"x",
               ("write", "@0", b"x"), ("pread", "@0", 9, 0), who="other", setup=(("chmod", ".", 0o777),))  # fmt: skip
    yield rule("open-unnamed", "open(2): O_TMPFILE", ("open", ".", TMPFILE | os.O_RDWR), "descriptor", setup=SETUP,
               instead=("ENOTSUP", "programs make a named file and unlink it: README, what is promised"))  # fmt: skip


def descriptors() -> Iterator[Rule]:
    """Reading, writing and seeking."""
    read, write, both = (("open", "f", flag) for flag in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR))
    rows: tuple[tuple[str, tuple[Call, ...], Any], ...] = (
        ("write-read-only", (read, ("write", "@0", b"x")), "EBADF"),
        ("read-write-only", (write, ("read", "@0", 1)), "EBADF"),
        ("ftruncate-read-only", (read, ("ftruncate", "@0", 1)), "EINVAL|EBADF"),
        ("ftruncate-negative", (write, ("ftruncate", "@0", -1)), "EINVAL"),
        ("truncate-negative", (("truncate", "f", -1),), "EINVAL"),
        ("truncate-directory", (("truncate", "d", 0),), "EISDIR"),
        ("truncate-fifo", (("truncate", "p", 0),), "EINVAL"),
        ("pread-negative", (read, ("pread", "@0", 1, -1)), "EINVAL"),
        ("pwrite-negative", (write, ("pwrite", "@0", b"x", -1)), "EINVAL"),
        ("seek-negative", (read, ("lseek", "@0", -1, os.SEEK_SET)), "EINVAL"),
        ("seek-before", (read, ("lseek", "@0", -11, os.SEEK_END)), "EINVAL"),
        ("seek-end", (read, ("lseek", "@0", 5, os.SEEK_END)), 15),
        ("seek-whence", (read, ("lseek", "@0", 0, 77)), "EINVAL"),
        ("seek-data", (read, ("lseek", "@0", 3, os.SEEK_DATA)), 3),
        ("seek-hole", (read, ("lseek", "@0", 3, os.SEEK_HOLE)), 10),
        ("seek-data-end", (read, ("lseek", "@0", 10, os.SEEK_DATA)), "ENXIO"),
        ("seek-hole-end", (read, ("lseek", "@0", 10, os.SEEK_HOLE)), "ENXIO"),
        ("read-end", (read, ("pread", "@0", 5, 10)), b""),
        ("read-behind", (read, ("pread", "@0", 5, 1 << 40)), b""),
        ("read-short", (read, ("pread", "@0", 50, 7)), b"789"),
        ("read-directory", (("open", "d", os.O_RDONLY), ("read", "@0", 1)), "EISDIR"),
        ("write-nothing-far", (write, ("pwrite", "@0", b"", 1000)), 0),
        ("write-returns", (both, ("write", "@0", b"abc")), 3),
        ("append-position", (("open", "f", os.O_RDWR | os.O_APPEND), ("lseek", "@0", 0, os.SEEK_SET),
        ("write", "@0", b"x"),
                             ("lseek", "@0", 0, os.SEEK_CUR)), 11),
        ("fsync-read-only", (read, ("fsync", "@0")), None),
        ("fsync-directory", (("open", "d", os.O_RDONLY), ("fsync", "@0")), None),
        ("truncate-up-zeros", (both, ("ftruncate", "@0", 4), ("ftruncate", "@0", 8), ("pread", "@0", 9, 0)),
        b"0123\0\0\0\0"),
        ("write-gap-zeros", (both, ("pwrite", "@0", b"x", 13), ("pread", "@0", 99, 8)), b"89\0\0\0x"),
        ("truncate-write-gap", (both, ("ftruncate", "@0", 2), ("pwrite", "@0", b"x", 6), ("pread", "@0", 99,
        0)), b"01\0\0\0\0x"),
        ("chmod-after-open", (both, ("chmod", "f", 0), ("write", "@0", b"x")), 1),
    )  # fmt: skip
    for name, calls, want in rows:
        yield rule(
            f"descriptor-{name}",
            "read(), write(), lseek(), ftruncate()",
            calls[0],
            want,
            *calls[1:],
            setup=SETUP,
        )
    yield rule("append-ignores-offset", "write(): O_APPEND", ("open", "f", os.O_RDWR | os.O_APPEND), ...,
               ("lseek", "@0", 2, os.SEEK_SET), ("write", "@0", b"xy"), setup=SETUP, then=((("content",
               "f"), FULL + b"xy"),))  # fmt: skip
    yield rule("write-nothing-keeps-size", "write() of 0 bytes", ("open", "f", os.O_WRONLY), ..., ("pwrite",
               "@0", b"", 1000),
               setup=SETUP, then=((("size", "f"), 10),))  # fmt: skip
    yield rule("allocate", "posix_fallocate()", ("open", "f", os.O_RDWR), ..., ("allocate", "@0", 0, 100), setup=SETUP,
               then=((("size", "f"), 100), (("content", "f"), FULL + bytes(90))))  # fmt: skip


def sizes() -> Iterator[Rule]:
    """Far offsets, large sizes, and their ends."""
    for offset in (
        (1 << 31) - 1,
        1 << 31,
        (1 << 32) - 2,
        1 << 32,
        TIB - 1,
        2 * TIB - 3,
        2 * TIB,
        4 * TIB + 12345,
        15 * TIB,
    ):
        yield rule(f"sparse-{offset:x}", "lseek(), write()", ("sparse", "n", offset, b"far"), (offset + 3,
                   bytes(4), b"far"),
                   then=((("size", "n"), offset + 3),))  # fmt: skip
        yield rule(f"truncate-{offset:x}", "truncate()", ("truncate", "f", offset), ..., setup=SETUP,
                   then=((("size", "f"), offset),))  # fmt: skip
        yield rule(f"truncate-there-and-back-{offset:x}", "truncate()", ("truncate", "f", offset), ...,
                   ("truncate", "f", 5),
                   ("truncate", "f", 9), setup=SETUP, then=((("content", "f"), b"01234" + bytes(4)),))  # fmt: skip
    yield rule(
        "truncate-too-far",
        "truncate(): EFBIG",
        ("truncate", "f", 17 * TIB),
        "EFBIG",
        setup=SETUP,
        then=((("size", "f"), 10),),
    )
    yield rule(
        "truncate-most", "truncate(): EFBIG", ("truncate", "f", (1 << 63) - 1), "EFBIG", setup=SETUP
    )
    opened = ("open", "f", os.O_RDWR)
    yield rule(
        "limit-over",
        "write(): EFBIG at the limit",
        opened,
        "EFBIG",
        ("limited-write", "@0", 4096, 10, 4096),
        setup=SETUP,
    )
    yield rule("limit-part", "write(): as much as fits", opened, 6, ("limited-write", "@0", 4090, 10, 4096),
               setup=SETUP,
               then=((("size", "f"), 4096),))  # fmt: skip


def specials() -> Iterator[Rule]:
    """Fifos, sockets and device nodes keep their type, mode and number."""
    for kind, path, kind_bits in (
        ("fifo", "p", stat.S_IFIFO),
        ("socket", "k", stat.S_IFSOCK),
        ("char", "c", stat.S_IFCHR),
    ):
        yield rule(f"special-{kind}", "mknod()", ("chmod", path, 0o640), ..., setup=SETUP,
                   then=((("type", path), kind_bits), (("mode", path), 0o640), (("nlink", path), 1)))  # fmt: skip
        yield rule(f"special-{kind}-rename", "rename()", ("rename", path, "n"), ..., ("link", "n", "n2"), setup=SETUP,
                   then=((("type", "n2"), kind_bits), (("nlink", "n"), 2)))  # fmt: skip
        yield rule(
            f"special-{kind}-chown",
            "chown()",
            ("chown", path, 7, 8),
            ...,
            setup=SETUP,
            then=((("ids", path), (7, 8)),),
        )
        yield rule(f"special-{kind}-xattr", "xattr(7): user attributes only of files and directories",
                   ("setxattr", path, "user.a", b"1"), "EPERM", setup=SETUP)  # fmt: skip
    yield rule(
        "special-number",
        "mknod()",
        ("block", "b"),
        ...,
        then=((("rdev", "b"), os.makedev(7, 0)), (("type", "b"), stat.S_IFBLK)),
    )
    yield rule(
        "special-by-user",
        "mknod(): EPERM",
        ("char", "n"),
        "EPERM",
        who="other",
        setup=(("chmod", ".", 0o777),),
    )
    yield rule(
        "special-fifo-by-user",
        "mkfifo()",
        ("mkfifo", "n"),
        ...,
        who="other",
        setup=(("chmod", ".", 0o777),),
    )
    yield rule("special-fifo-data", "read(), write() of a fifo", ("open", "p", os.O_RDWR | os.O_NONBLOCK), b"through",
               ("write", "@0", b"through"), ("read", "@0", 99), setup=SETUP)  # fmt: skip
    for size in (1, 59, 60, 255, 1000, 4000, 4095):
        target = "t" * size
        yield rule(
            f"symlink-{size}",
            "symlink()",
            ("symlink", target, "n"),
            target,
            ("readlink", "n"),
            then=((("size", "n"), size),),
        )
    yield rule(
        "symlink-4096", "symlink(): ENAMETOOLONG", ("symlink", "t" * 4096, "n"), "ENAMETOOLONG"
    )
    yield rule("symlink-to-nothing", "symlink(2): ENOENT", ("symlink", "", "n"), "ENOENT")
    for path in ("f", "d", "p"):
        yield rule(
            f"readlink-{path}", "readlink(): EINVAL", ("readlink", path), "EINVAL", setup=SETUP
        )


def xattrs() -> Iterator[Rule]:
    """Extended attributes: xattr(7), setxattr(2)."""
    setup = (
        *SETUP,
        ("setxattr", "f", "user.a", b"1"),
        ("setxattr", "f", "user.c", b"3"),
        ("setxattr", "d", "user.a", b"1"),
    )
    rows: tuple[tuple[str, Call, Any], ...] = (
        ("get", ("getxattr", "f", "user.a"), b"1"),
        ("get-none", ("getxattr", "f", "user.none"), "ENODATA"),
        ("get-directory", ("getxattr", "d", "user.a"), b"1"),
        ("get-through-link", ("getxattr", "s", "user.a"), b"1"),
        ("list", ("listxattr", "f"), ["user.a", "user.c"]),
        ("create-there", ("setxattr", "f", "user.a", b"2", 1), "EEXIST"),
        ("create", ("setxattr", "f", "user.b", b"2", 1), ...),
        ("replace-none", ("setxattr", "f", "user.b", b"2", 2), "ENODATA"),
        ("replace", ("setxattr", "f", "user.a", b"2", 2), ...),
        ("flags", ("setxattr", "f", "user.a", b"2", 4), "EINVAL"),
        ("empty-value", ("setxattr", "f", "user.e", b""), ...),
        ("remove", ("removexattr", "f", "user.a"), ...),
        ("remove-none", ("removexattr", "f", "user.none"), "ENODATA"),
        ("no-namespace", ("setxattr", "f", "colour", b"2"), "ENOTSUP"),
        ("strange-namespace", ("setxattr", "f", "strange.a", b"2"), "ENOTSUP"),
        ("no-name", ("setxattr", "f", "user.", b"2"), "EINVAL"),
        ("longest-name", ("setxattr", "f", "user." + "n" * 250, b"2"), ...),
        ("name-too-long", ("setxattr", "f", "user." + "n" * 251, b"2"), "ERANGE"),
        ("value-too-long", ("setxattr", "f", "user.b", bytes(65537)), "E2BIG"),
        ("on-link", ("lsetxattr", "s", "user.b", b"2"), "EPERM"),
        ("trusted", ("setxattr", "f", "trusted.b", b"2"), ...),
        ("trusted-on-link", ("lsetxattr", "s", "trusted.b", b"2"), ...),
        ("security", ("setxattr", "f", "security.holdfast", b"2"), ...),
    )  # fmt: skip
    for name, call, want in rows:
        yield rule(f"xattr-{name}", "xattr(7)", call, want, setup=setup)
    yield rule("xattr-replaced", "setxattr(2)", ("setxattr", "f", "user.a", b"new value"), ..., setup=setup,
               then=((("getxattr", "f", "user.a"), b"new value"), (("listxattr", "f"), ["user.a",
               "user.c"])))  # fmt: skip
    yield rule("xattr-linked", "setxattr(2)", ("link", "f", "g"), ..., ("setxattr", "g", "user.a", b"9"), setup=setup,
               then=((("getxattr", "f", "user.a"), b"9"),))  # fmt: skip
    yield rule("xattr-trusted-hidden", "xattr(7)", ("getxattr", "f", "trusted.t"), "ENODATA", who="other",
               setup=(*setup, ("setxattr", "f", "trusted.t", b"1")))  # fmt: skip
    yield rule("xattr-acl", "acl(5)", ("getxattr", "f", "system.posix_acl_access"), "ENODATA",
               setup=setup)  # fmt: skip


def rules() -> Iterator[Rule]:
    """All of them."""
    for part in (opens, descriptors, sizes, specials, xattrs):
        yield from part()
