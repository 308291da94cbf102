"""Looking at an LMDB file before LMDB does: a file cut short would kill the process (SIGBUS) on first access.

Layout of LMDB 0.9 on 64-bit little-endian machines: two meta pages, each 16 bytes of page header, then magic u32,
version u32, address u64, map size u64, two database records of 48 bytes (the first begins with the page size),
last page u64, transaction id u64.
"""

from __future__ import annotations

import os
import struct

from engine.errors import Corrupt, NotFound, from_os

_MAGIC = 0xBEEFC0DE
_META = struct.Struct("<16xIIQQ I44x 48x QQ")
_DO = "run 'holdfast repair --rebuild-index'"


def inspect(folder: str) -> None:
    """Raises NotFound when there is no index, Corrupt when its file cannot be what LMDB left."""
    path = os.path.join(folder, "data.mdb")
    try:
        size = os.stat(path).st_size
        with open(path, "rb") as file:
            first = file.read(_META.size)
            page = _page_size(first)
            file.seek(page)
            second = file.read(_META.size)
    except FileNotFoundError:
        raise NotFound(f"index {path}", expected="a file", found="none", do=_DO) from None
    except OSError as error:
        raise from_os(error, f"index {path}") from None
    metas = [meta for meta in (_decode(first), _decode(second)) if meta is not None]
    if not metas:
        raise Corrupt(f"index {path}", expected="an LMDB file", found="no valid meta page", do=_DO)
    _, last = max(metas)
    if (last + 1) * page > size:
        raise Corrupt(
            f"index {path}",
            expected=f"{(last + 1) * page} bytes",
            found=f"{size} (cut short)",
            do=_DO,
        )


def _page_size(raw: bytes) -> int:
    if len(raw) == _META.size:
        page = int(_META.unpack(raw)[4])
        if 512 <= page <= 65536 and page & (page - 1) == 0:
            return page
    return 4096


def _decode(raw: bytes) -> tuple[int, int] | None:
    """(transaction, last page), or None for a meta page that is not one."""
    if len(raw) != _META.size:
        return None
    magic, version, _, _, _, last, transaction = _META.unpack(raw)
    return (transaction, last) if magic == _MAGIC and version == 1 else None
