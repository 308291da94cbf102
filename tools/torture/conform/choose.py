"""What is done next: an operation with its arguments, from drawn numbers and the state of the model."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from tools.torture.conform.model import Model
from tools.torture.conform.nodes import Node, Refused

NAMES = ("a", "b", "c", "dd", "e\n\udcff", "f" * 40)
TARGETS = ("a", "b/c", "./dd", "a/../b", "nowhere", "c")
MODES = (0o644, 0o600, 0o755, 0o400, 0o777, 0o000)
DIR_MODES = (0o755, 0o700, 0o1777, 0o2775)
SLOTS = 6
DEPTH = 4
SPAN = 2 << 20
OFFSETS = (0, 1, 100, 4095, 4096, 5000, 65_535, 65_536, SPAN - 3, SPAN, SPAN + 70_000)
FAR = (2 << 40) + 5
SIZES = (1, 7, 900, 4096, 10_000, 70_000)
CUTS = (0, 0, 3, 4000, 4096, 65_537, SPAN - 1, SPAN, SPAN + 5, 2 * SPAN)
XATTRS = ("user.a", "user.b", "user.long" + "g" * 30)
VALUES = (0, 1, 300, 900)  # three of them still fit the one block that ext4 gives them
OPEN_FLAGS = (
    os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_CREAT,
    os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    os.O_RDWR | os.O_CREAT | os.O_APPEND, os.O_RDONLY | os.O_DIRECTORY, os.O_RDONLY | os.O_NOFOLLOW,
    os.O_RDWR | os.O_NOFOLLOW | os.O_CREAT, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, os.O_RDONLY | os.O_TRUNC,
    os.O_WRONLY | os.O_CREAT | os.O_SYNC, os.O_RDONLY | os.O_CREAT | os.O_DIRECTORY,
)  # fmt: skip

Draw = Callable[[int], int]
"""A number from 0 to below the argument."""


class Step(NamedTuple):
    """An operation of ``Model`` and ``Disk`` with its arguments."""

    name: str
    arguments: tuple[object, ...]

    def __str__(self) -> str:
        shown = [
            f"<{len(a)} bytes>" if isinstance(a, bytes) and len(a) > 20 else repr(a)
            for a in self.arguments
        ]
        return f"{self.name}({', '.join(shown)})"


class Chooser:
    """Draws operations that fit the model as it is. ``far``: offsets beyond 2 TiB too."""

    def __init__(self, model: Model, draw: Draw, *, far: bool = True) -> None:
        self._model = model
        self._far = far
        self._draw = draw
        self._count = 0

    def _one(self, things: tuple[object, ...]) -> object:
        return things[self._draw(len(things))]

    def _known(self, wanted: Callable[[Node], bool] = lambda node: True) -> str:
        found = [path for path, node in self._model.tree() if path and wanted(node)]
        return found[self._draw(len(found))] if found else self._new()

    def _new(self) -> str:
        folders = [p for p, n in self._model.tree() if n.is_dir and p.count("/") < DEPTH - 1]
        return f"{folders[self._draw(len(folders))]}/{self._one(NAMES)}".lstrip("/")

    def _path(self) -> str:
        """Mostly something that is there; at times a name in a known directory, or below a file or link."""
        kind = self._draw(10)
        if kind < 7:
            return self._known()
        return self._new() if kind < 9 else f"{self._known()}/{self._one(NAMES)}"

    def _file(self) -> str:
        return self._known(lambda node: node.is_file)

    def _data(self) -> bytes:
        size = int(str(self._one(SIZES)))
        self._count += 1
        unit = bytes((self._count * 7 + place) % 255 + 1 for place in range(61))
        return (unit * (size // 61 + 1))[:size]

    def _offset(self) -> int:
        return (
            FAR
            if self._far and self._draw(40) == 0
            else int(str(self._one(OFFSETS))) + self._draw(3)
        )

    def step(self, name: str) -> Step | None:
        """The operation of that name with arguments; None when there is nothing it could be done to."""
        arguments = getattr(self, f"_{name}_arguments")()
        return None if arguments is None else Step(name, arguments)

    # --- names

    def _mkdir_arguments(self) -> tuple[object, ...]:
        return self._new() if self._draw(5) else self._path(), self._one(DIR_MODES)

    def _mkfifo_arguments(self) -> tuple[object, ...]:
        return (self._new(),)

    def _symlink_arguments(self) -> tuple[object, ...]:
        return self._one(TARGETS), self._new() if self._draw(4) else self._path()

    def _link_arguments(self) -> tuple[object, ...]:
        return self._file() if self._draw(4) else self._path(), self._new() if self._draw(
            4
        ) else self._path()

    def _unlink_arguments(self) -> tuple[object, ...]:
        return (self._path(),)

    def _rmdir_arguments(self) -> tuple[object, ...]:
        return (self._known(lambda node: node.is_dir) if self._draw(3) else self._path(),)

    def _rename_arguments(self) -> tuple[object, ...]:
        return (
            self._path(),
            self._path() if self._draw(2) else self._new(),
            (0, 0, 0, 1, 2, 2)[self._draw(6)],
        )

    def _readlink_arguments(self) -> tuple[object, ...]:
        return (self._known(lambda node: node.is_link) if self._draw(3) else self._path(),)

    def _names_arguments(self) -> tuple[object, ...]:
        return (self._path(),)

    # --- attributes

    def _stat_arguments(self) -> tuple[object, ...]:
        return self._path(), bool(self._draw(2))

    def _chmod_arguments(self) -> tuple[object, ...] | None:
        path = self._path()
        is_dir = False
        with suppress(Refused):
            is_dir = self._model.find(path).is_dir
        return path, self._one(DIR_MODES if is_dir else MODES)

    def _chown_arguments(self) -> tuple[object, ...]:
        return (
            self._path(),
            (-1, 0, 7)[self._draw(3)],
            (-1, 0, 9)[self._draw(3)],
            bool(self._draw(2)),
        )

    def _utime_arguments(self) -> tuple[object, ...]:
        return (
            self._path(),
            10**9 * self._draw(1 << 31) + 5,
            10**9 * self._draw(1 << 31) + self._draw(10**9),
        )

    def _setxattr_arguments(self) -> tuple[object, ...]:
        return (
            self._path(),
            self._one(XATTRS),
            self._data()[: int(str(self._one(VALUES)))],
            (0, 0, 1, 2)[self._draw(4)],
        )

    def _getxattr_arguments(self) -> tuple[object, ...]:
        return self._path(), self._one(XATTRS)

    def _removexattr_arguments(self) -> tuple[object, ...]:
        return self._path(), self._one(XATTRS)

    def _listxattr_arguments(self) -> tuple[object, ...]:
        return (self._path(),)

    # --- open files

    def _slot(self) -> int | None:
        slots = sorted(self._model.open_files)
        return slots[self._draw(len(slots))] if slots else None

    def _open_arguments(self) -> tuple[object, ...] | None:
        free = [slot for slot in range(SLOTS) if slot not in self._model.open_files]
        if not free:
            return None
        flags = int(str(self._one(OPEN_FLAGS)))
        if flags & os.O_CREAT and self._draw(2):
            path = self._new()
        else:
            path = self._file() if self._draw(3) else self._path()
        with suppress(Refused):
            if stat.S_ISFIFO(self._model.find(path).mode):
                return None  # who opens a fifo depends on who else does
        return path, flags | os.O_NONBLOCK, self._one(MODES), free[0]

    def _of_slot(self, *more: object) -> tuple[object, ...] | None:
        slot = self._slot()
        return None if slot is None else (slot, *more)

    def _fstat_arguments(self) -> tuple[object, ...] | None:
        return self._of_slot()

    def _fsync_arguments(self) -> tuple[object, ...] | None:
        return self._of_slot()

    def _close_arguments(self) -> tuple[object, ...] | None:
        return self._of_slot()

    def _fchmod_arguments(self) -> tuple[object, ...] | None:
        slot = self._slot()
        if slot is None:
            return None
        return slot, self._one(DIR_MODES if self._model.open_files[slot].node.is_dir else MODES)

    def _read_arguments(self) -> tuple[object, ...] | None:
        return self._of_slot(self._one(SIZES))

    def _pread_arguments(self) -> tuple[object, ...] | None:
        return self._of_slot(self._one(SIZES), self._offset())

    def _write_arguments(self) -> tuple[object, ...] | None:
        return self._of_slot(self._data())

    def _pwrite_arguments(self) -> tuple[object, ...] | None:
        return self._of_slot(self._data(), self._offset())

    def _ftruncate_arguments(self) -> tuple[object, ...] | None:
        return self._of_slot(self._one(CUTS))

    def _truncate_arguments(self) -> tuple[object, ...]:
        return self._file() if self._draw(3) else self._path(), self._one(CUTS)

    def _lseek_arguments(self) -> tuple[object, ...] | None:
        slot = self._slot()
        if slot is None or self._model.open_files[slot].node.is_dir:
            return None
        return slot, self._offset() - 200 * self._draw(2), self._draw(5)

    # --- mappings

    def _map_arguments(self) -> tuple[object, ...] | None:
        ready = [
            slot for slot, one in sorted(self._model.open_files.items())
            if one.node.is_file and one.flags & os.O_ACCMODE == os.O_RDWR and 0 < one.node.content.size <= 4 * SPAN
        ]  # fmt: skip
        if not ready:
            return None
        slot = ready[self._draw(len(ready))]
        return slot, self._model.open_files[slot].node.content.size

    def _mapped(self) -> tuple[int, int] | None:
        """A descriptor with a mapping, and how much of that is inside the file as it is now."""
        usable = [
            (slot, min(size, self._model.open_files[slot].node.content.size))
            for slot, size in sorted(self._model.maps.items())
        ]
        usable = [one for one in usable if one[1]]
        return usable[self._draw(len(usable))] if usable else None

    def _unmap_arguments(self) -> tuple[object, ...] | None:
        slots = sorted(self._model.maps)
        return (slots[self._draw(len(slots))],) if slots else None

    def _store_arguments(self) -> tuple[object, ...] | None:
        found = self._mapped()
        if found is None:
            return None
        slot, size = found
        at = self._draw(size)
        return slot, at, self._data()[: size - at], bool(self._draw(2))

    def _load_arguments(self) -> tuple[object, ...] | None:
        found = self._mapped()
        if found is None:
            return None
        slot, size = found
        at = self._draw(size)
        return slot, at, min(70_000, size - at)


# Every operation, as often as its share.
WEIGHTS = {
    "open": 10, "close": 4, "pwrite": 8, "write": 5, "pread": 5, "read": 3, "lseek": 3, "ftruncate": 3, "truncate": 4,
    "fsync": 2, "fstat": 2, "map": 3, "store": 4, "load": 3, "unmap": 1, "mkdir": 6, "rmdir": 3,
    "unlink": 5, "rename": 10,
    "link": 5, "symlink": 3, "mkfifo": 1, "readlink": 1, "names": 3, "stat": 3, "chmod": 3, "fchmod": 1, "chown": 3,
    "utime": 3, "setxattr": 4, "getxattr": 2, "removexattr": 2, "listxattr": 1,
}  # fmt: skip
OPERATIONS = tuple(name for name, share in WEIGHTS.items() for _ in range(share))
