"""The audit log: its chain, what a crash leaves, several processes, and what others have put into it."""

from __future__ import annotations

import fcntl
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.contract import AuditLine
from daemon.observe import Audit
from daemon.observe.audit import ABOUT_MAX, TORN, WHO_MAX, follows
from engine.errors import Busy, HoldfastError, LocationUnavailable

LIMIT = 60
WRITER = """
import sys
from daemon.observe import Audit
log = Audit(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    line = log.write("root", "unix", "mount.create", f"{sys.argv[2]}-{number}", "ok")
    print(line.number, line.about, flush=True)
"""


def filled(place: Path, count: int = 3) -> Audit:
    times = iter(range(1000, 2000))
    log = Audit(str(place), clock=lambda: next(times))
    for number in range(count):
        log.write("admin", "10.0.0.1", "token.create", f"t{number}", "ok")
    return log


def test_what_is_written_is_there(tmp_path: Path) -> None:
    place = tmp_path / "audit.log"
    log = filled(place)
    lines = log.lines()
    assert [line.number for line in lines] == [1, 2, 3]
    assert lines[1] == AuditLine(
        2, 1001, "admin", "10.0.0.1", "token.create", "t1", "ok", lines[1].chain
    )
    assert [line.number for line in log.lines(after=1, limit=1)] == [2]
    assert log.lines(after=3) == log.lines(limit=0) == []
    found = log.verify()
    assert (found.lines, found.bad, found.chain) == (3, 0, lines[2].chain)
    assert (place.stat().st_mode & 0o777) == 0o600
    assert [json.loads(row)["number"] for row in place.read_text().splitlines()] == [1, 2, 3]
    chain = ""
    for number, line in enumerate(lines, 1):
        assert follows(line, number, chain) and not follows(line, number, "x")
        chain = line.chain


def test_no_file_is_an_empty_log(tmp_path: Path) -> None:
    log = Audit(str(tmp_path / "audit.log"))
    assert log.lines() == [] and log.verify().lines == 0 and log.verify().bad == 0


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(HoldfastError, match="audit log"):
        Audit(str(tmp_path / "missing" / "audit.log")).write("a", "b", "c", "d", "ok")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HoldfastError, match="audit log"):
        Audit(str(tmp_path / "link")).write("a", "b", "c", "d", "ok")


@given(*[st.text(max_size=700) | st.text('\x1b\n\x7f\x9b\u202e\udcff"\\', max_size=40)] * 5)
@settings(max_examples=40)
def test_any_text_is_one_printable_line(
    who: str, origin: str, act: str, about: str, result: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "audit.log")
        log = Audit(str(place))
        made = log.write(who, origin, act, about, result)
        assert log.lines() == [made] and log.verify().bad == 0
        assert place.read_text(encoding="ascii").removesuffix("\n").isprintable()
        assert all(text.isprintable() for text in (made.who, made.origin, made.act, made.about))
        assert len(made.who) <= WHO_MAX and len(made.origin) <= WHO_MAX
        assert len(made.about) <= ABOUT_MAX


def test_a_token_is_no_part_of_it(tmp_path: Path) -> None:
    secret = "hf_0123456789ab_" + "5e" * 32
    line = Audit(str(tmp_path / "log")).write("x", "y", "act", f"with {secret}", "ok")
    assert line.about == "with hf_0123456789ab_***"


# --- what does not fit ---------------------------------------------------------------------------


def changed(rows: list[bytes], which: int, old: bytes, new: bytes) -> list[bytes]:
    assert old in rows[which]
    return [*rows[:which], rows[which].replace(old, new), *rows[which + 1 :]]


HARM: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int]] = {
    "who": (lambda rows: changed(rows, 1, b"admin", b"nobody"), 2),
    "about": (lambda rows: changed(rows, 1, b'"t1"', b'"t9"'), 2),
    "time": (lambda rows: changed(rows, 0, b": 1000", b": 1001"), 1),
    "number": (lambda rows: changed(rows, 2, b'"number": 3', b'"number": 4'), 3),
    "spaces": (lambda rows: changed(rows, 2, b'": "', b'":"'), 3),
    "no object": (lambda rows: changed(rows, 1, b"{", b"["), 2),
    "taken out": (lambda rows: [rows[0], *rows[2:]], 2),
    "begin cut off": (lambda rows: rows[1:], 1),
    "order": (lambda rows: [rows[1], rows[0], *rows[2:]], 1),
    "twice": (lambda rows: [*rows[:2], rows[1], *rows[2:]], 3),
    "deep": (lambda rows: [*rows, b"[" * 9000 + b"\n"], 5),
    "long": (lambda rows: [*rows, b"x" * 40000], 5),
    "torn": (lambda rows: [*rows, rows[3][:-1]], 5),
    "empty": (lambda rows: [*rows, b"\n"], 5),
}


@pytest.mark.parametrize("name", HARM)
def test_the_first_line_that_does_not_fit(tmp_path: Path, name: str) -> None:
    harm, bad = HARM[name]
    place = tmp_path / "audit.log"
    log = filled(place, 4)
    place.write_bytes(b"".join(harm(place.read_bytes().splitlines(keepends=True))))
    found = log.verify()
    assert found.bad == bad and found.why
    assert len(log.lines()) >= 3  # and what can be read still is


@given(st.data())
@settings(max_examples=60)
def test_any_byte_that_is_another(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "audit.log")
        log = filled(place)
        whole = bytearray(place.read_bytes())
        where = data.draw(st.integers(0, len(whole) - 1))
        line = whole.count(b"\n", 0, where) + 1
        whole[where] ^= data.draw(st.integers(1, 255))
        place.write_bytes(whole)
        assert log.verify().bad == line


# --- crashes -------------------------------------------------------------------------------------


def test_torn_at_any_byte(tmp_path: Path) -> None:
    place = tmp_path / "audit.log"
    aside = tmp_path / "audit.log.torn"
    filled(place)
    whole = place.read_bytes()
    last = whole.rfind(b"\n", 0, -1)
    for cut in (0, 1, 7, *range(last - 2, len(whole), 3), len(whole) - 1):
        place.write_bytes(whole[:cut])
        aside.unlink(missing_ok=True)
        kept = whole[:cut].count(b"\n")
        torn = whole[:cut][whole[:cut].rfind(b"\n") + 1 :]
        log = Audit(str(place))
        assert log.verify().bad == (kept + 1 if torn else 0)
        log.write("next", "", "act", "", "ok")
        assert log.verify().bad == 0
        lines = log.lines()
        assert [line.about for line in lines[:kept]] == [f"t{n}" for n in range(kept)]
        assert lines[-1].who == "next"
        if torn:
            assert aside.read_bytes() == torn + b"\n"
            assert lines[kept].act == TORN and f"{len(torn)} bytes" in lines[kept].about
        assert len(lines) == kept + 1 + bool(torn) and aside.exists() == bool(torn)


@pytest.mark.parametrize(
    "tail",
    [b"\0" * 5000, b'{"number": 4, \0\0\0\n', b"x" * 70000, b"\n\n"],
    ids=["zeros", "half", "long", "empty"],
)
def test_what_a_power_cut_leaves(tmp_path: Path, tail: bytes) -> None:
    place = tmp_path / "audit.log"
    log = filled(place)
    with place.open("ab") as file:
        file.write(tail)
    assert log.lines(limit=3)[2].about == "t2"
    assert log.write("next", "", "act", "", "ok").number == 5
    assert log.verify().bad == 0
    assert (tmp_path / "audit.log.torn").read_bytes() == tail + b"\n"


def run(place: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(place), name, str(count)]
    made = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert made.stdout and made.stdout.readline() == "ready\n"
    return made


def begin(writer: subprocess.Popen[str]) -> None:
    assert writer.stdin
    writer.stdin.write("\n")
    writer.stdin.flush()


def test_processes_and_threads_append_to_one_chain(tmp_path: Path) -> None:
    place = tmp_path / "audit.log"
    log = Audit(str(place))
    others = [run(place, name, 20) for name in "abc"]
    threads = [
        threading.Thread(target=lambda: [log.write("t", "", "act", "", "ok") for _ in range(10)])
        for _ in range(4)
    ]
    for other in others:
        begin(other)
    for thread in threads:
        thread.start()
    said = [other.communicate(timeout=LIMIT)[0].split() for other in others]
    for thread in threads:
        thread.join(LIMIT)
    assert [other.returncode for other in others] == [0, 0, 0]
    found = log.verify()
    assert (found.lines, found.bad) == (100, 0)
    about = {line.number: line.about for line in log.lines()}
    for words in said:
        for number, text in zip(words[::2], words[1::2], strict=True):
            assert about[int(number)] == text


def test_a_killed_process_loses_nothing_acknowledged(tmp_path: Path) -> None:
    place = tmp_path / "audit.log"
    log = Audit(str(place))
    chance = random.Random(5)
    acknowledged = 0
    for turn in range(4):
        writer = run(place, str(turn), 10_000)
        assert writer.stdout
        begin(writer)
        for _ in range(chance.randrange(1, 30)):
            acknowledged = int(writer.stdout.readline().split()[0])
        writer.kill()
        rest = writer.communicate(timeout=LIMIT)[0].splitlines()
        if rest and len(rest[-1].split()) == 2:
            acknowledged = int(rest[-1].split()[0])
        assert log.write("test", "", "after", "", "ok").number > acknowledged
        assert log.verify().bad == 0


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    place = tmp_path / "audit.log"
    script = (
        "import resource, sys\n"
        "from daemon.observe import Audit\n"
        "from engine.errors import StoreFull\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "log = Audit(sys.argv[1])\n"
        "try:\n"
        "    while True: log.write('a', 'b', 'c', 'd', 'ok')\n"
        "except StoreFull as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(place)], capture_output=True, text=True, timeout=LIMIT
    )
    assert "free space" in done.stdout, done.stderr
    found = Audit(str(place)).verify()
    assert found.bad == 0 and found.lines > 1
    assert place.read_bytes().endswith(b"\n")


def test_a_line_is_synced_before_it_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    real = os.fsync

    def noted(fd: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{fd}"), os.fstat(fd).st_size))
        real(fd)

    monkeypatch.setattr(os, "fsync", noted)
    place = tmp_path / "audit.log"
    log = Audit(str(place))
    log.write("a", "b", "c", "d", "ok")
    assert sorted({path for path, _ in synced}) == [str(tmp_path), str(place)]
    log.write("a", "b", "c", "d", "ok")
    assert synced[-1] == (str(place), place.stat().st_size)


def test_a_lock_that_is_held_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.observe.audit.LOCK_LIMIT", 0.05)
    log = filled(tmp_path / "audit.log")
    with open(log.path, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Busy, match="another process"):
            log.write("a", "b", "c", "d", "ok")
        with pytest.raises(Busy, match="another process"):
            log.verify()
    assert log.write("a", "b", "c", "d", "ok").number == 4


def test_nothing_is_written_after_a_sync_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = filled(tmp_path / "audit.log")

    def failing(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(LocationUnavailable):
            log.write("a", "b", "c", "d", "ok")
    with pytest.raises(LocationUnavailable, match="start the service again"):
        log.write("a", "b", "c", "d", "ok")
