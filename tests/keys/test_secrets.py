"""What a person holds: printed forms, key files, passphrases; nothing of it is ever shown."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import HoldfastError, InvalidRequest, NotFound, PermissionDenied
from engine.keys import Both, Identity, Key, Passphrase, Recipient, load, load_from, parse
from tests.keys.support import CHEAP


@given(st.binary(min_size=32, max_size=32))
def test_a_printed_key_is_read_again(data: bytes) -> None:
    for key in (Key(data), Recipient(data), Identity(data)):
        assert parse(key.printed()) == key
        assert parse("  " + key.printed().lower().replace("-", " ") + "\n") == key
    assert [len(group) for group in Key(data).printed().split("-")] == [5] * 11


@given(st.binary(min_size=32, max_size=32), st.integers(0, 54), st.integers(1, 31))
def test_a_mistyped_key_is_not_taken(data: bytes, at: int, by: int) -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    text = list(Key(data).printed().replace("-", ""))
    text[at] = letters[(letters.index(text[at]) + by) % 32]
    try:
        other = parse("".join(text))
    except InvalidRequest as error:
        shown = "".join(text) in str(error)
    else:  # one in 65,536: the check is of two bytes
        shown = other == Key(data)
    assert not shown


@given(st.text(max_size=80))
def test_whatever_is_typed_is_a_key_or_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(text)


def test_passphrases_are_normal_and_not_empty() -> None:
    for form in ("NFC", "NFD"):
        assert Passphrase(unicodedata.normalize(form, "Zürich")).data == "Zürich".encode()
    for wrong in ("", "x" * 1025, "\ud800"):
        with pytest.raises(InvalidRequest):
            Passphrase(wrong)


def test_key_files(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"k" * 32)
    path.chmod(0o600)
    assert load(str(path)) == Key(b"k" * 32)
    path.write_text(Identity(b"i" * 32).printed() + "\n")
    assert load(str(path)) == Identity(b"i" * 32)
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(PermissionDenied, match="chmod 600"):
            load(str(path))
    fd = os.open(path, os.O_RDONLY)
    assert load_from(fd, "credential") == Identity(b"i" * 32)
    os.close(fd)
    path.chmod(0o600)
    for wrong in (b"", b"k" * 31, b"k" * 33, b"\xff" * 40, b"A" * 5000, b"\n"):
        path.write_bytes(wrong)
        with pytest.raises(InvalidRequest):
            load(str(path))
    with pytest.raises(NotFound):
        load(str(tmp_path / "none"))
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(NotFound):
        load(str(tmp_path / "pipe"))


CANARY = "correct horse battery staple"


def test_no_secret_is_shown() -> None:
    key = Key(b"\xc7" * 32)
    one = Passphrase(CANARY)
    identity = Identity(b"\xc8" * 32)
    shown = [f"{x!r} {x!s} {[x]!r}" for x in (one, key, identity, Both(one, key), CHEAP)]
    for wrong in ("x" + key.printed(), "identity:" + "A" * 55, CANARY * 90):
        for read in (parse, Passphrase):
            try:
                read(wrong)
            except HoldfastError as error:
                shown.append(f"{error} {error!r}")
    for text in shown:
        for secret in (CANARY, key.printed()[:11], "c7c7", "\\xc7", "c8c8", "\\xc8", "A" * 20):
            assert secret not in text
