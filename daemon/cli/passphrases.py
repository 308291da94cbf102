"""The file a passphrase comes in: read in one way wherever one is given, or what is sealed with it stays shut."""

from __future__ import annotations

import os
import stat

from engine.errors import InvalidRequest, PermissionDenied, from_os

_MOST = 4096  # bytes of the file


def passphrase_of(path: str) -> str:
    """The one line of a file that nobody else can read; ends of lines after it do not count.

    Raises NotFound, PermissionDenied, InvalidRequest.
    """
    what = f"passphrase file {path}"
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(_MOST + 1)
    except OSError as error:
        raise from_os(error, what) from None
    if stat.S_ISREG(mode) and mode & 0o077:
        raise PermissionDenied(
            what, expected="a file that nobody else can read", found=f"mode {stat.S_IMODE(mode):04o}",
            do=f"chmod 600 {path}",
        )  # fmt: skip
    try:
        text = raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        text = ""
    if not text or "\n" in text or len(raw) > _MOST:
        raise InvalidRequest(what, expected="a passphrase as its only line, UTF-8", found="none")
    return text
