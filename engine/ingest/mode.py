"""Choosing how a file is cut: by override, by its previous version, by name, by its first bytes."""

from __future__ import annotations

import re

from engine.errors import InvalidRequest
from engine.ingest.jobs import Mode

CHOICES = {"auto": Mode.UNKNOWN, "fixed": Mode.FIXED, "cdc": Mode.STREAM}

# Written in place, page by page: disk images and database files.
_IN_PLACE = re.compile(
    rb"\.(img|raw|qcow2?|vmdk|vdi|vhdx?|hdd|iso|dbf|ora|ctl|ibd|ibdata\d*|myd|mdf|ndf|ldf|db|sqlite3?|dat|edb|fdb)$"
    rb"|(^|/)(base/\d+|global)/\d+(_(fsm|vm|init))?(\.\d+)?$"  # PostgreSQL relations
    rb"|(^|/)data_D-[^/]*$",  # image copies as RMAN names them
    re.IGNORECASE,
)
_STREAM = re.compile(
    rb"\.(tar|tgz|t[gx]z|dmp|dump|sql|bkp|bak|rman|cpio|zip|gz|xz|zst|bz2|wal|log|arc)$",
    re.IGNORECASE,
)


def parse(name: str) -> Mode:
    """A mount's ``--chunking`` option. Raises InvalidRequest."""
    try:
        return CHOICES[name]
    except KeyError:
        raise InvalidRequest(
            f"chunking {name!r}", expected=" or ".join(CHOICES), do="choose one of them"
        ) from None


def choose_mode(
    path: bytes, first: bytes | memoryview, override: str = "auto", predecessor_mode: int = 0
) -> Mode:
    """Mode of a file whose first dirty bytes are ``first`` (from its start, possibly none)."""
    fixed = parse(override)
    if fixed != Mode.UNKNOWN:
        return fixed
    if predecessor_mode:
        return Mode(predecessor_mode)
    if _STREAM.search(path):
        return Mode.STREAM
    if _IN_PLACE.search(path) or _looks_like_disk(bytes(first[:2048])):
        return Mode.FIXED
    return Mode.STREAM


def _looks_like_disk(head: bytes) -> bool:
    """A partition table, an ext file system, qcow2, or VMDK at the start of the file."""
    return (
        head[:4] in (b"QFI\xfb", b"KDMV")
        or (head[510:512] == b"\x55\xaa" and head[257:262] != b"ustar")
        or head[1080:1082] == b"\x53\xef"
    )
