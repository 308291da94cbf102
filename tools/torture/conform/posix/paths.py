"""How pathnames resolve, for every call that takes one."""

from __future__ import annotations

import os
from collections.abc import Iterator

from tools.torture.conform.posix.rules import Call, Rule, rule

PAGE = "XBD 4.16 Pathname Resolution"
LONG = "n" * 255
TOO_LONG = "n" * 256
PATH_MAX = 4096  # with the NUL
EPOCH = (1_000_000_000, 5)

# name, the call on a path "%", whether it follows a last symbolic link, whether it makes the name
CALLS: tuple[tuple[str, Call, bool, bool], ...] = (
    ("stat", ("stat", "%"), True, False),
    ("lstat", ("lstat", "%"), False, False),
    ("access", ("access", "%", 0), True, False),
    ("open", ("open", "%", os.O_RDONLY), True, False),
    ("open-write", ("open", "%", os.O_WRONLY), True, False),
    ("create", ("open", "%", os.O_WRONLY | os.O_CREAT), True, True),
    ("create-new", ("open", "%", os.O_WRONLY | os.O_CREAT | os.O_EXCL), False, True),
    ("mkdir", ("mkdir", "%"), False, True),
    ("mkfifo", ("mkfifo", "%"), False, True),
    ("mknod", ("mknod-file", "%"), False, True),
    ("symlink", ("symlink", "x", "%"), False, True),
    ("link-to", ("link", "f", "%"), False, True),
    ("rename-to", ("rename", "f", "%"), False, True),
    ("noreplace-to", ("rename2", "f", "%", 1), False, True),
    ("exchange-with", ("rename2", "f", "%", 2), False, False),
    ("link-of", ("link", "%", "n"), False, False),
    ("rename-of", ("rename", "%", "n"), False, False),
    ("rmdir", ("rmdir", "%"), False, False),
    ("unlink", ("unlink", "%"), False, False),
    ("readlink", ("readlink", "%"), False, False),
    ("chmod", ("chmod", "%", 0o644), True, False),
    ("chown", ("chown", "%", 0, 0), True, False),
    ("lchown", ("lchown", "%", 0, 0), False, False),
    ("truncate", ("truncate", "%", 3), True, False),
    ("utimens", ("utimens", "%", EPOCH, EPOCH), True, False),
    ("list", ("list", "%"), True, False),
    ("chdir", ("chdir", "%"), True, False),
    ("statvfs", ("statvfs", "%"), True, False),
    ("getxattr", ("getxattr", "%", "user.a"), True, False),
    ("setxattr", ("setxattr", "%", "user.a", b"1"), True, False),
    ("listxattr", ("listxattr", "%"), True, False),
    ("removexattr", ("removexattr", "%", "user.a"), True, False),
)  # fmt: skip

SETUP: tuple[Call, ...] = (
    ("file", "f", 0o644), ("dir", "d"), ("symlink", "loop", "loop"), ("symlink", "ring2", "ring1"),
    ("symlink", "ring1", "ring2"), ("symlink", "nowhere", "dangling"), ("symlink", "f/x", "through-file"),
)  # fmt: skip


def _at(call: Call, path: str) -> Call:
    return tuple(path if one == "%" else one for one in call)


def _padded(last: str, size: int) -> str:
    """A path of so many bytes that means ``last``."""
    room = size - len(last)
    odd = ".//" if room % 2 else ""
    return odd + "./" * ((room - len(odd)) // 2) + last


def prefixes() -> Iterator[Rule]:
    """What goes wrong before the last part is reached is the same for every call."""
    for name, call, _, _ in CALLS:
        for kind, path, want in (
            ("missing", "missing/x", "ENOENT"),
            ("empty", "", "ENOENT"),
            ("file", "f/x", "ENOTDIR"),
            ("file-dot", "f/.", "ENOTDIR"),
            ("file-dots", "f/../f", "ENOTDIR"),
            ("loop", "loop/x", "ELOOP"),
            ("ring", "ring1/x", "ELOOP"),
            ("dangling", "dangling/x", "ENOENT"),
            ("too-long", f"{TOO_LONG}/x", "ENAMETOOLONG"),
            ("too-long-path", _padded("x", PATH_MAX), "ENAMETOOLONG"),
        ):
            if kind == "file-dot" and name in ("mkdir", "mkfifo", "mknod", "symlink", "create-new"):
                continue  # on Linux the last dot is seen first: EEXIST
            yield rule(f"way-{kind}-{name}", PAGE, _at(call, path), want, setup=SETUP)


def last_parts() -> Iterator[Rule]:
    """The last part: missing, too long, a symbolic link that leads nowhere."""
    for name, call, follows, makes in CALLS:
        yield rule(
            f"{name}-last-too-long",
            f"{PAGE}; NAME_MAX",
            _at(call, TOO_LONG),
            "ENAMETOOLONG",
            setup=SETUP,
        )
        if makes:
            yield rule(
                f"{name}-longest",
                "NAME_MAX",
                _at(call, LONG),
                ...,
                setup=SETUP,
                then=((("exists", LONG), True),),
            )
            path = _padded("name", PATH_MAX - 1)
            yield rule(
                f"{name}-longest-path",
                "PATH_MAX",
                _at(call, path),
                ...,
                setup=SETUP,
                then=((("exists", "name"), True),),
            )
        else:
            yield rule(f"{name}-missing-last", PAGE, _at(call, "none"), "ENOENT", setup=SETUP)
        if follows:
            for link in ("loop", "ring2"):
                yield rule(f"{name}-last-{link}", "ELOOP", _at(call, link), "ELOOP", setup=SETUP)
            yield rule(
                f"{name}-through-file", PAGE, _at(call, "through-file"), "ENOTDIR", setup=SETUP
            )
        if follows and not makes:
            yield rule(f"{name}-last-dangling", PAGE, _at(call, "dangling"), "ENOENT", setup=SETUP)
    for name, call, _, makes in CALLS:
        if makes and name not in ("create", "rename-to", "noreplace-to"):
            for there in ("f", "d", "dangling", "loop"):
                if there == "f" and name == "link-to":
                    continue
                yield rule(
                    f"{name}-over-{there}", "EEXIST", _at(call, there), "EEXIST", setup=SETUP
                )
    deep = [("symlink", f"l{number - 1}" if number else "f", f"l{number}") for number in range(41)]
    chain: tuple[Call, ...] = (("file", "f", 0o644), *deep)
    yield rule("links-40", "SYMLOOP_MAX; 40 on Linux", ("stat", "l39"), ..., setup=chain)
    yield rule("links-41", "SYMLOOP_MAX; 40 on Linux", ("stat", "l40"), "ELOOP", setup=chain)
    yield rule("create-through-link", "open(): O_CREAT follows", ("open", "dangling", os.O_CREAT | os.O_WRONLY), ...,
               setup=SETUP, then=((("exists", "nowhere"), True),))  # fmt: skip


def slashes() -> Iterator[Rule]:
    """Trailing slashes ask for a directory; dots and dot-dots."""
    why = "XBD 4.16: a trailing slash"
    setup: tuple[Call, ...] = (
        ("file", "f", 0o644),
        ("dir", "d"),
        ("dir", "d/e"),
        ("symlink", "d", "s"),
        ("symlink", "f", "sf"),
    )
    rows: tuple[tuple[str, Call, object], ...] = (
        ("stat-file", ("stat", "f/"), "ENOTDIR"),
        ("lstat-file", ("lstat", "f/"), "ENOTDIR"),
        ("open-file", ("open", "f/", os.O_RDONLY), "ENOTDIR"),
        ("unlink-file", ("unlink", "f/"), "ENOTDIR"),
        ("rename-file", ("rename", "f/", "n"), "ENOTDIR"),
        ("rename-to-slash", ("rename", "f", "n/"), "ENOTDIR"),
        ("link-file", ("link", "f/", "n"), "ENOTDIR"),
        ("link-to-slash", ("link", "f", "n/"), "ENOENT|ENOTDIR"),
        ("truncate-file", ("truncate", "f/", 0), "ENOTDIR"),
        ("chmod-file", ("chmod", "f/", 0o600), "ENOTDIR"),
        ("stat-linked-file", ("stat", "sf/"), "ENOTDIR"),
        ("rmdir-file", ("rmdir", "f/"), "ENOTDIR"),
        ("create", ("open", "n/", os.O_CREAT | os.O_WRONLY), "EISDIR"),
        ("symlink", ("symlink", "x", "n/"), "ENOENT"),
        ("mkfifo", ("mkfifo", "n/"), "ENOENT"),
        ("mkdir", ("mkdir", "n/"), ...),
        ("mkdir-many", ("mkdir", "n///"), ...),
        ("rmdir", ("rmdir", "d/e/"), ...),
        ("rename-directory", ("rename", "d/", "n/"), ...),
        ("unlink-directory", ("unlink", "d/"), "EISDIR|EPERM"),
        ("list", ("list", "d///"), ["e"]),
        ("stat-linked-directory", ("stat", "s/"), ...),
        ("rmdir-linked-directory", ("rmdir", "s/"), "ENOTDIR"),
        ("readlink-slash", ("readlink", "s/"), "EINVAL"),
        ("mkdir-there", ("mkdir", "d/"), "EEXIST"),
        ("mkdir-dot", ("mkdir", "."), "EEXIST"),
        ("mkdir-dots", ("mkdir", "d/.."), "EEXIST"),
        ("mkdir-new-dot", ("mkdir", "n/."), "ENOENT"),
        ("rmdir-dot", ("rmdir", "d/e/."), "EINVAL"),
        ("rmdir-dots", ("rmdir", "d/e/.."), "ENOTEMPTY|EEXIST"),
        ("unlink-dot", ("unlink", "d/."), "EISDIR|EPERM|EINVAL"),
        ("rename-dot", ("rename", "d/.", "n"), "EBUSY|EINVAL"),
        ("rename-dots", ("rename", "d/e/..", "n"), "EBUSY|EINVAL"),
        ("rename-to-dot", ("rename", "d/e", "d/."), "EBUSY|EINVAL"),
        ("link-dot", ("link", "f", "d/."), "EEXIST"),
        ("symlink-dots", ("symlink", "x", "d/.."), "EEXIST"),
        ("stat-dots", ("stat", "d/e/../../f"), ...),
        ("stat-dot", ("stat", "./d/./e/."), ...),
        ("create-dot", ("open", ".", os.O_CREAT | os.O_RDONLY), "EISDIR"),
        ("double-slash", ("stat", ".//d//e"), ...),
    )
    for name, call, want in rows:
        yield rule(f"slash-{name}", why, call, want, setup=setup)


def _used(one: Rule) -> tuple[Call, ...]:
    """Of the common set-up the file, and what the call's paths begin with."""
    if one.setup is not SETUP:
        return one.setup
    first = {str(part).partition("/")[0] for part in one.calls[0]}
    if first & {"ring1", "ring2"}:
        first |= {"ring1", "ring2"}
    return tuple(call for call in SETUP if call[1] == "f" or call[-1] in first or call[1] in first)


def rules() -> Iterator[Rule]:
    """All of them."""
    for part in (prefixes, last_parts, slashes):
        for one in part():
            yield one._replace(setup=_used(one))
