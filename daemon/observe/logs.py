"""Log records: to journald with its fields, else as plain text; one line each, without the secrets of tokens.

``extra={"mount": …}`` (or session, job, point, request) of a record becomes a field HOLDFAST_MOUNT=, or is written
behind the text.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import struct
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

from daemon.observe.text import masked, printable

JOURNAL = "/run/systemd/journal/socket"
IDENTIFIER = "holdfast"
FIELDS = ("mount", "session", "job", "point", "request")
TEXT_MAX = 64 << 10  # characters of a record
FIELD_MAX = 256
SEND_LIMIT = (
    1.0  # s a record waits for a journal that is stuck; who logs may be the event loop's thread
)
_BUFFER = 4 << 20  # bytes on their way to the journal; the kernel may grant less
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def setup(level: str = "info", format: str = "auto", *, journal: str = JOURNAL) -> None:
    """Send the records of this process where ``format`` says; of other loggers than ours those from a warning on.

    ``auto``: the journal where standard error is the journal, else plain. Called again it replaces what was set.
    """
    use = format == "journal" or (
        format == "auto" and stderr_is_journal() and os.path.exists(journal)
    )
    root = logging.getLogger()
    ours = (logging.StreamHandler, Plain, Journal)  # the first is basicConfig's
    for old in [one for one in root.handlers if type(one) in ours]:
        root.removeHandler(old)
        old.close()
    root.addHandler(Journal(journal) if use else Plain())
    root.setLevel(logging.WARNING)
    logging.getLogger("holdfast").setLevel(level.upper())


def stderr_is_journal() -> bool:
    """Whether systemd has connected standard error to the journal, and nobody has put something else there."""
    try:
        there = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM", "") == f"{there.st_dev}:{there.st_ino}"


class Plain(logging.StreamHandler[Any]):
    """A line of text for each record: time in UTC, level, logger, text."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def format(self, record: logging.LogRecord) -> str:
        """The line; where an error was not expected, a line for each of its traceback."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = "".join(f" {key}={value}" for key, value in _extra(record))
        trace = "".join(f"\n  | {one}" for one in _trace(record))
        head = f"{moment}.{int(record.msecs):03d}Z {record.levelname} {record.name}"
        return f"{head}: {_message(record)}{fields}{trace}"

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Nobody reads standard error: there is no other place to tell it."""


class Journal(logging.Handler):
    """One datagram for each record in journald's native protocol. Without a journal a record goes to standard error.

    One that is stuck is waited for once; until it takes records again they are counted and lost.
    """

    def __init__(self, path: str = JOURNAL) -> None:
        super().__init__()
        self._path = path
        self._plain = Plain()
        self._lost = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Send one; called with the handler's lock."""
        try:
            self._socket.settimeout(0 if self._lost else SEND_LIMIT)
            if self._lost:
                text = f"{self._lost} records were lost: the journal did not take them"
                self._send({"MESSAGE": text, "PRIORITY": "4", "SYSLOG_IDENTIFIER": IDENTIFIER})
                self._lost = 0
            self._send(fields(record))
        except (TimeoutError, BlockingIOError):
            self._lost += 1
        except OSError:
            self._plain.handle(record)

    def _send(self, entry: dict[str, str]) -> None:
        data = b"".join(_encoded(entry))
        try:
            self._socket.sendto(data, self._path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._send_file(data)

    def _send_file(self, data: bytes) -> None:
        """Too long for a datagram: an empty one takes a sealed file in memory along."""
        fd = os.memfd_create(IDENTIFIER, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(fd, "wb", buffering=0) as file:
            file.write(data)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))
            self._socket.sendmsg([b""], [rights], 0, self._path)


def fields(record: logging.LogRecord) -> dict[str, str]:
    """A record as the journal's fields."""
    entry = {
        "MESSAGE": _message(record),
        "PRIORITY": str(next((p for level, p in _PRIORITIES if record.levelno >= level), 7)),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "HOLDFAST_LOGGER": printable(record.name, FIELD_MAX),
        "CODE_FILE": printable(record.pathname, FIELD_MAX),
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": printable(record.funcName or "", FIELD_MAX),
    }
    entry |= {f"HOLDFAST_{key.upper()}": value for key, value in _extra(record)}
    trace = "\n".join(_trace(record))
    return entry | ({"HOLDFAST_TRACEBACK": trace} if trace else {})


def _encoded(entry: dict[str, str]) -> Iterator[bytes]:
    for key, value in entry.items():
        raw = value.encode()
        if b"\n" in raw:  # then its length says where it ends
            yield key.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n"
        else:
            yield key.encode() + b"=" + raw + b"\n"


def _message(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001  whatever is wrong with the arguments, the record is not lost
        text = f"{record.msg!r} with {record.args!r}"
    return printable(masked(text), TEXT_MAX)


def _extra(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    for key in FIELDS:
        value = getattr(record, key, None)
        if value not in (None, ""):
            yield key, printable(masked(str(value)), FIELD_MAX)


def _trace(record: logging.LogRecord) -> list[str]:
    if not record.exc_info or record.exc_info[0] is None:
        return []
    lines = "".join(traceback.format_exception(*record.exc_info)).splitlines()
    return [printable(masked(line), 4 * FIELD_MAX) for line in lines]
