"""Restore from a storage location's files, as any tool brings them home: no Holdfast, no index, no network.

    holdfast_rescue.py DIRECTORY list
    holdfast_rescue.py DIRECTORY ls POINT [PATH]
    holdfast_rescue.py DIRECTORY restore POINT [PATH] --to NEW_DIRECTORY
    holdfast_rescue.py DIRECTORY check

DIRECTORY holds what lies at the location (``holdfast.json``, ``keys/``, ``journal/``, ``packs/``).  What opens it is
asked for, or read: ``--passphrase-file FILE``, ``--key-file FILE`` (32 bytes, a printed recovery key, or the
``identity:`` of a recipient), or both.  ``check --keyless`` needs neither: it compares packs with their names.

Three files of plain Python that need nothing else of the project, written from FORMAT-copies.md, FORMAT.md and
FORMAT-nodes.md.  Needs the packages ``cryptography`` and ``blake3``, and zstd: Python 3.14 has it, before that
``backports.zstd``.  What cannot be read is named, and everything else is restored.  Devices, setuid bits and
attributes of the system only with ``--privileged``.
Exit codes: 0 all is well, 2 wrong usage, 10 no such point, 14 the secret opens nothing, 20 something is damaged.
"""

import argparse
import getpass
import os
import resource
import stat
import struct
import sys
import unicodedata
from pathlib import Path

from blake3 import blake3
from rescue_location import (
    DAMAGED,
    NO_POINT,
    PACK_MAX,
    SPAN,
    USAGE,
    Damage,
    Location,
    Secrets,
    Stop,
    load,
    need,
    read_key,
    shown,
)
from rescue_trees import Entry, members, point_root, spans, xattrs

# --- restoring --------------------------------------------------------------------------------------------

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Restore:
    """Writes below one new directory, name by name from its descriptor: no link is ever followed."""

    def __init__(self, place: Location, target: str, most: int, privileged: bool) -> None:
        self.place = place
        self.left = most  # inodes: a tree of shared nodes could say more than any disk holds
        self.privileged = privileged
        self.links: dict[int, tuple[bytes, ...]] = {}
        try:
            os.mkdir(target, 0o700)
            self.top = os.open(target, _DIR)
        except OSError as error:
            raise Stop(
                USAGE, f"{target}: {error.strerror}; --to names a directory that is made"
            ) from None

    def tree(self, root: Entry) -> None:
        """The content of a directory, and its attributes."""
        stack = [(os.dup(self.top), root, members(self.place, root.rest))]
        path: list[bytes] = []
        while stack:
            folder, entry, rest = stack[-1]
            child = next(rest, None)
            if child is None:
                self.attributes(folder, None, entry, "/" + shown(b"/".join(path)))
                os.close(folder)
                stack.pop()
                path[-1:] = []
                continue
            inner = self.member(folder, child, (*path, child.name))
            if inner is not None:
                stack.append((inner, child, members(self.place, child.rest)))
                path.append(child.name)

    def member(self, folder: int, entry: Entry, path: tuple[bytes, ...]) -> int | None:
        """Make one entry; the descriptor of a directory, whose content follows."""
        text = "/" + shown(b"/".join(path))
        try:
            if entry.is_dir:
                self.count()
                os.mkdir(entry.name, 0o700, dir_fd=folder)
                return os.open(entry.name, _DIR, dir_fd=folder)
            if entry.nlink > 1 and self.links.setdefault(entry.ino, path) != path:
                self.link(folder, entry, self.links[entry.ino])
                return None
            self.count()
            if stat.S_ISREG(entry.mode):
                self.file(folder, entry, text)
            elif stat.S_ISLNK(entry.mode):
                os.symlink(entry.rest, entry.name, dir_fd=folder)
                self.attributes(folder, entry.name, entry, text)
            elif self.privileged or stat.S_ISFIFO(entry.mode):
                os.mknod(entry.name, entry.mode & 0o170777, entry.rdev, dir_fd=folder)
                self.attributes(folder, entry.name, entry, text)
            else:
                self.place.problem(f"{text}: a device or socket, made only with --privileged")
        except (Damage, OSError, ValueError) as error:
            self.place.problem(f"{text}: {error}")
        return None

    def count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stop(DAMAGED, "there is more than the point says it holds: stopped")

    def link(self, folder: int, entry: Entry, first: tuple[bytes, ...]) -> None:
        held = [os.dup(self.top)]
        try:
            for name in first[:-1]:
                held.append(os.open(name, _DIR, dir_fd=held[-1]))
            os.link(
                first[-1], entry.name, src_dir_fd=held[-1], dst_dir_fd=folder, follow_symlinks=False
            )
        finally:
            for fd in held:
                os.close(fd)

    def file(self, folder: int, entry: Entry, text: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(entry.name, flags, 0o600, dir_fd=folder)
        try:
            os.ftruncate(fd, entry.size)
            for number, parts in spans(self.place, entry.rest):
                for offset, length, cid, start in parts:
                    at = number * SPAN + offset
                    try:
                        need(at + length <= entry.size, "data behind its end")
                        data = self.place.read(cid)[start : start + length]
                        need(len(data) == length, "a chunk that is too short")
                        need(os.pwrite(fd, data, at) == length, "no room")
                    except Damage as error:
                        self.place.problem(f"{text} at {at}: {error}")
            self.attributes(fd, None, entry, text)
        except (IndexError, struct.error) as error:
            self.place.problem(f"{text}: {type(error).__name__}")
        finally:
            os.close(fd)

    def attributes(self, fd: int, name: bytes | None, entry: Entry, text: str) -> None:
        """Of the open ``fd``, or of ``name`` in the directory ``fd``, which may be a link."""
        try:
            if os.geteuid() == 0:
                if name is None:
                    os.fchown(fd, entry.uid, entry.gid)
                else:
                    os.chown(name, entry.uid, entry.gid, dir_fd=fd, follow_symlinks=False)
            if name is None:
                for key, value in xattrs(self.place, entry.xattrs):
                    if self.privileged or key.startswith((b"user.", b"system.posix_acl_")):
                        os.setxattr(fd, key, value)
                os.fchmod(fd, entry.mode & (0o7777 if self.privileged else 0o1777))
                os.utime(fd, ns=(entry.atime, entry.mtime))
            else:
                os.utime(name, ns=(entry.atime, entry.mtime), dir_fd=fd, follow_symlinks=False)
        except (Damage, OSError, OverflowError, IndexError) as error:
            self.place.problem(f"attributes of {text}: {error}")


# --- commands ---------------------------------------------------------------------------------------------


def find_point(place: Location, beginning: str) -> str:
    found = [point for point in place.points if point.startswith(beginning)]
    if len(found) != 1:
        raise Stop(NO_POINT, f"{len(found)} points begin with {beginning!r}")
    return found[0]


def descend(place: Location, root: Entry, path: str) -> Entry:
    entry = root
    for name in (part for part in os.fsencode(path).split(b"/") if part):
        found = (
            [one for one in members(place, entry.rest) if one.name == name] if entry.is_dir else []
        )
        if not found:
            raise Stop(NO_POINT, f"no {shown(os.fsencode(path))} in this point")
        entry = found[0]
    return entry


def list_points(place: Location) -> None:
    for point in sorted(place.points):
        try:
            _, mount, files = point_root(place, point)
            print(point, shown(mount.encode()), f"{files} files")
        except (Damage, struct.error) as error:
            place.problem(f"point {shown(point.encode())}: {error}")


def list_entries(place: Location, entry: Entry) -> None:
    for one in members(place, entry.rest) if entry.is_dir else (entry,):
        to = f" -> {shown(one.rest)}" if stat.S_ISLNK(one.mode) else ""
        print(stat.filemode(one.mode), one.uid, one.gid, one.size, shown(one.name) + to)


def restore(place: Location, point: str, arguments: argparse.Namespace) -> None:
    root, _, files = point_root(place, point)
    entry = descend(place, root, arguments.path)
    target = Restore(place, arguments.to, files, arguments.privileged)
    if entry.is_dir:
        target.tree(entry)
    else:
        target.member(target.top, entry, (entry.name,))
    print(f"restored to {arguments.to}, {place.problems} problems")


def check_names(place: Location) -> None:
    count = 0
    for path in place.pack_paths():
        try:
            need(
                blake3(load(path, PACK_MAX)).hexdigest() == path.name,
                "bytes that are not its name's",
            )
            count += 1
        except Damage as error:
            place.problem(f"pack {path.name}: {error}")
    print(f"{count} packs are what their names say")


def check_all(place: Location) -> None:
    """Every record, and that every point has all it needs."""
    for cid in place.places:
        try:
            place.read(cid)
        except Damage as error:
            place.problem(error)
    for point in sorted(place.points):
        try:
            root, _, left = point_root(place, point)
            todo = [root]
            while todo:
                entry = todo.pop()
                left -= 1
                need(left >= -1, "more than the point says it holds")
                check_entry(place, entry)
                if entry.is_dir:
                    todo += members(place, entry.rest)
                left += entry.nlink > 1 and not entry.is_dir
        except (Damage, IndexError, struct.error) as error:
            place.problem(f"point {shown(point.encode())}: {error}")
    print(f"{len(place.places)} records, {len(place.points)} points")


def check_entry(place: Location, entry: Entry) -> None:
    list(xattrs(place, entry.xattrs))
    if stat.S_ISREG(entry.mode):
        for _, parts in spans(place, entry.rest):
            for _, _, cid, _ in parts:
                if cid not in place.places:
                    place.problem(f"{shown(entry.name)}: chunk {cid.hex()} is in no pack")


def secrets(arguments: argparse.Namespace, sealed: bool) -> Secrets:
    have = Secrets()
    if arguments.key_file:
        have = read_key(load(Path(arguments.key_file), 4096))
    text = ""
    if arguments.passphrase_file:
        text = load(Path(arguments.passphrase_file), 4096).decode().rstrip("\r\n")
    elif sealed and not any(have):
        text = getpass.getpass("passphrase: ")
    return have._replace(passphrase=unicodedata.normalize("NFC", text).encode())


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("location", help="directory, or file:// address of one")
    parser.add_argument("--passphrase-file")
    parser.add_argument("--key-file")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    check = commands.add_parser("check")
    check.add_argument("--keyless", action="store_true")
    listing, restoring = commands.add_parser("ls"), commands.add_parser("restore")
    for one in (listing, restoring):
        one.add_argument("point")
        one.add_argument("path", nargs="?", default="")
    restoring.add_argument("--to", required=True)
    restoring.add_argument("--privileged", action="store_true")
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> int:
    place = Location(Path(arguments.location.removeprefix("file://")))
    if arguments.command == "check":
        check_names(place)
    if arguments.command != "check" or not arguments.keyless:
        place.unlock(secrets(arguments, place.sealed))
        place.read_journal()
        place.read_packs()
    if arguments.command == "list":
        list_points(place)
    elif arguments.command == "check" and not arguments.keyless:
        check_all(place)
    elif arguments.command in ("ls", "restore"):
        point = find_point(place, arguments.point)
        if arguments.command == "restore":
            restore(place, point, arguments)
        else:
            list_entries(place, descend(place, point_root(place, point)[0], arguments.path))
    return DAMAGED if place.problems else 0


def main(arguments: list[str]) -> int:
    options = parsed(arguments)
    if "://" in options.location and not options.location.startswith("file:///"):
        print(
            "get the location's files with a tool of its server first, then name their directory",
            file=sys.stderr,
        )
        return USAGE
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # one for each directory above another
    os.umask(0)
    try:
        return run(options)
    except Stop as stop:
        print(stop, file=sys.stderr)
        return stop.code
    except (Damage, struct.error) as error:
        print(f"damaged: {error}", file=sys.stderr)
        return DAMAGED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
