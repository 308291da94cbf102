"""File systems on loop devices: made, attached, mounted, and always taken away again."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)

# Bytes of the smallest useful disk; how it is made; options of its mount.
KINDS: dict[str, tuple[int, tuple[str, ...], str]] = {
    "ext4": (32 * MIB, ("mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=4", "-E",
                        "nodiscard,lazy_itable_init=0,lazy_journal_init=0"), ""),
    "xfs": (300 * MIB, ("mkfs.xfs", "-q", "-f", "-K"), "nouuid"),
    "btrfs": (128 * MIB, ("mkfs.btrfs", "-q", "-f", "-K", "-M"), ""),
}  # fmt: skip


def make_image(kind: str, path: Path, times: int = 1) -> None:
    """A new file that holds an empty file system, so many times as large as the smallest."""
    size, command, _ = KINDS[kind]
    with open(path, "wb") as file:
        file.truncate(size * times)
    subprocess.run([*command, str(path)], check=True, stdin=subprocess.DEVNULL, capture_output=True)


@contextmanager
def attached(backing: Path) -> Iterator[str]:
    """A loop device on a file."""
    done = subprocess.run(
        ["losetup", "--find", "--show", str(backing)], check=True, capture_output=True, text=True
    )
    device = done.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def mount(device: str, place: Path, kind: str) -> None:
    """mount(2). Raises OSError: a file system that cannot be used."""
    options = KINDS[kind][2].encode() if kind in KINDS else b""
    if _libc.mount(device.encode(), bytes(place), kind.encode(), 0, options):
        number = ctypes.get_errno()
        raise OSError(number, f"mount of {kind}: {os.strerror(number)}")


def unmount(place: Path) -> None:
    """umount(2). Raises OSError."""
    if _libc.umount2(bytes(place), 0):
        number = ctypes.get_errno()
        raise OSError(number, f"umount: {os.strerror(number)}")


@contextmanager
def mounted(device: str, place: Path, kind: str) -> Iterator[Path]:
    """A directory with the file system of a device in it."""
    mount(device, place, kind)
    try:
        yield place
    finally:
        unmount(place)
