"""Log records: journald's protocol against a socket that reads it, plain text, and what must not be in either."""

from __future__ import annotations

import logging
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.observe import logs
from daemon.observe.text import masked, printable

SECRET = "hf_0123456789ab_" + "5e" * 32
LIMIT = 60


def record(
    text: str, *args: object, level: int = logging.WARNING, **extra: object
) -> logging.LogRecord:
    made = logging.LogRecord("holdfast.test", level, "/x/y.py", 7, text, args, None, "f")
    made.__dict__.update(extra)
    return made


class FakeJournal:
    """The other side of the protocol: entries as journald would take them apart."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(10)

    def entry(self) -> dict[str, bytes]:
        data, fds, _, _ = socket.recv_fds(self.socket, 1 << 20, 1)
        if fds:
            assert data == b""  # one or the other
            seals = os.readlink(f"/proc/self/fd/{fds[0]}")
            assert seals.startswith("/memfd:holdfast")
            with pytest.raises(OSError):
                os.ftruncate(fds[0], 1)
            data = os.pread(fds[0], 1 << 24, 0)
            os.close(fds[0])
        found = {}
        while data:
            head, _, data = data.partition(b"\n")
            key, mark, value = head.partition(b"=")
            if not mark:
                (size,) = struct.unpack_from("<Q", data)
                value, data = data[8 : 8 + size], data[9 + size :]
            assert re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}", key)
            found[key.decode()] = value
        return found


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[FakeJournal]:
    made = FakeJournal(tmp_path / "j")
    yield made
    made.socket.close()


@pytest.fixture
def handler(journal: FakeJournal) -> Iterator[logs.Journal]:
    made = logs.Journal(journal.path)
    yield made
    made.close()


def test_fields(journal: FakeJournal, handler: logs.Journal) -> None:
    handler.handle(record("%d things\nof %s", 3, "m\x1b", mount="oracle", job=7, session=""))
    assert journal.entry() == {
        "MESSAGE": b"3 things\\nof m\\x1b", "PRIORITY": b"4", "SYSLOG_IDENTIFIER": b"holdfast",
        "HOLDFAST_LOGGER": b"holdfast.test", "CODE_FILE": b"/x/y.py", "CODE_LINE": b"7",
        "CODE_FUNC": b"f", "HOLDFAST_MOUNT": b"oracle", "HOLDFAST_JOB": b"7",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("level", "priority"), [(10, b"7"), (20, b"6"), (30, b"4"), (40, b"3"), (50, b"2")]
)
def test_priorities(
    journal: FakeJournal, handler: logs.Journal, level: int, priority: bytes
) -> None:
    handler.handle(record("x", level=level))
    assert journal.entry()["PRIORITY"] == priority


def test_a_traceback_is_a_field_of_several_lines(
    journal: FakeJournal, handler: logs.Journal
) -> None:
    handler.handle(failed())
    entry = journal.entry()
    assert entry["MESSAGE"] == b"it failed"
    trace = entry["HOLDFAST_TRACEBACK"].decode()
    assert trace.startswith("Traceback (most recent call last):\n")
    assert trace.endswith(r"ValueError: with hf_0123456789ab_*** \x1b")


def failed() -> logging.LogRecord:
    made = record("it failed")
    try:
        raise ValueError(f"with {SECRET} \x1b")
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def test_a_long_record_goes_as_a_file(
    journal: FakeJournal, handler: logs.Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    handler.handle(record("x" * 60000))
    assert journal.entry()["MESSAGE"] == b"x" * 60000
    handler.handle(record("y" * 200_000))
    assert len(journal.entry()["MESSAGE"].decode()) == logs.TEXT_MAX


def test_a_record_that_makes_no_sense_is_not_lost(
    journal: FakeJournal, handler: logs.Journal
) -> None:
    handler.handle(record("%d", "x"))
    assert journal.entry()["MESSAGE"] == b"'%d' with ('x',)"


def test_without_a_journal_it_goes_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = logs.Journal(str(tmp_path / "missing"))
    handler.handle(record("told"))
    handler.close()
    assert "WARNING holdfast.test: told" in capsys.readouterr().err


def test_one_that_is_stuck_is_waited_for_once(
    journal: FakeJournal, handler: logs.Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "SEND_LIMIT", 0.05)
    sent = 0
    while not handler._lost:
        handler.handle(record("%d", sent))
        sent += 1
    handler.handle(record("lost too"))
    assert [journal.entry()["MESSAGE"] for _ in range(sent - 1)]
    handler.handle(record("again"))
    assert journal.entry()["MESSAGE"] == b"2 records were lost: the journal did not take them"
    assert journal.entry()["MESSAGE"] == b"again"


def test_plain(capsys: pytest.CaptureFixture[str]) -> None:
    made = failed()
    made.created, made.msecs, made.mount = 1_700_000_000.5, 500.0, "m\nx"
    logs.Plain().handle(made)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == r"2023-11-14T22:13:20.500Z WARNING holdfast.test: it failed mount=m\nx"
    assert lines[1] == "  | Traceback (most recent call last):"
    assert lines[-1] == r"  | ValueError: with hf_0123456789ab_*** \x1b"


@given(st.text(max_size=60), st.sampled_from([SECRET, f"Bearer {SECRET}", f"token={SECRET},"]))
def test_no_secret_and_no_control_character_is_told(text: str, secret: str) -> None:
    made = record(f"{text} {secret} {text}".replace("%", "%%"), mount=f"{text} {secret}")
    entry = logs.fields(made)
    for value in (*entry.values(), logs.Plain().format(made)):
        assert value.isprintable()
        assert "5e5e5e5e" not in value


def test_what_is_masked() -> None:
    assert masked(f"a {SECRET}b") == "a hf_0123456789ab_***"
    assert masked("Authorization: Basic dXNlcjpwYXNzd29yZA==") == "Authorization: Basic ***"
    assert (
        masked("hf_point basic words, the bearer of it") == "hf_point basic words, the bearer of it"
    )
    assert printable("é ☃\t", 9) == "é ☃\\t"
    assert printable("x" * 10, 5) == "xxxx…"


# --- setup ---------------------------------------------------------------------------------------

SCRIPT = """
import logging, sys
from daemon.observe import logs
logging.basicConfig()
logs.setup(sys.argv[1], sys.argv[2], journal=sys.argv[3])
logs.setup(sys.argv[1], sys.argv[2], journal=sys.argv[3])
logging.getLogger("holdfast.engine").debug("small")
logging.getLogger("holdfast.engine").info("told")
logging.getLogger("other").info("nothing")
logging.getLogger("other").warning("of others")
"""


def run(journal: FakeJournal, level: str, form: str, *, connected: bool) -> str:
    """Standard error of a process; ``connected``: as systemd would have connected it to the journal."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        there = os.fstat(theirs.fileno())
        named = f"{there.st_dev}:{there.st_ino}" if connected else "1:2"
        subprocess.run(
            [sys.executable, "-c", SCRIPT, level, form, journal.path],
            stderr=theirs, check=True, timeout=LIMIT, env=os.environ | {"JOURNAL_STREAM": named},
        )  # fmt: skip
        theirs.close()
        return ours.recv(1 << 16).decode()


@pytest.mark.parametrize(("form", "connected"), [("auto", True), ("journal", False)])
def test_records_go_to_the_journal(journal: FakeJournal, form: str, connected: bool) -> None:
    assert run(journal, "info", form, connected=connected) == ""
    assert [journal.entry()["MESSAGE"] for _ in range(2)] == [b"told", b"of others"]


@pytest.mark.parametrize(("form", "connected"), [("auto", False), ("plain", True)])
def test_records_go_to_standard_error(journal: FakeJournal, form: str, connected: bool) -> None:
    lines = run(journal, "debug", form, connected=connected).splitlines()
    assert [line.partition("Z ")[2] for line in lines] == [
        "DEBUG holdfast.engine: small", "INFO holdfast.engine: told", "WARNING other: of others",
    ]  # fmt: skip
