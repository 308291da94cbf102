"""A passphrase file says the same to whoever reads it: the one who seals, the one who opens, the rescue program."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.cli.passphrases import passphrase_of
from engine.errors import InvalidRequest, NotFound, PermissionDenied


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_its_only_line_counts(tmp_path: Path, end: str) -> None:
    path = tmp_path / "words"
    path.write_bytes(" two words é".encode() + end.encode())
    path.chmod(0o600)
    assert passphrase_of(str(path)) == " two words é"


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo\n", b"\xff\n", b"x" * 5000])
def test_what_could_be_read_in_two_ways_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "words"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(InvalidRequest, match="only line"):
        passphrase_of(str(path))


def test_others_must_not_read_it(tmp_path: Path) -> None:
    path = tmp_path / "words"
    with pytest.raises(NotFound):
        passphrase_of(str(path))
    path.write_text("word")
    path.chmod(0o640)
    with pytest.raises(PermissionDenied, match="chmod 600"):
        passphrase_of(str(path))
