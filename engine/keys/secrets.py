"""What a person holds: a passphrase, a key (a file, or on paper), both, or the private key of a recipient.

No secret is ever part of a repr or of a message. Files with secrets are read only when nobody else can read them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
import unicodedata
from dataclasses import dataclass, field

from engine import limits
from engine.errors import InvalidRequest, NotFound, PermissionDenied, from_os
from engine.keys import primitives
from engine.keys.primitives import KEY_LEN
from engine.seam import REAL, Os

_CHECK_LEN = 2
_GROUP = 5
_CHARACTERS = 55  # 34 bytes in base32
_RECIPIENT, _IDENTITY = "recipient", "identity"


class Passphrase:
    """Text a person remembers, in the normal form NFC: the same keys on another keyboard give the same bytes."""

    __slots__ = ("data",)

    def __init__(self, text: str) -> None:
        try:
            self.data = unicodedata.normalize("NFC", text).encode()
        except UnicodeEncodeError:
            raise InvalidRequest(
                "passphrase", expected="Unicode text", found="half a character"
            ) from None
        if not 0 < len(self.data) <= limits.PASSPHRASE_MAX:
            raise InvalidRequest(
                "passphrase", expected=f"1 to {limits.PASSPHRASE_MAX} bytes",
                found=f"{len(self.data)}", do="choose another one",
            )  # fmt: skip


def _key_of(data: bytes, what: str) -> bytes:
    if len(data) != KEY_LEN:
        raise InvalidRequest(what, expected=f"{KEY_LEN} bytes", found=f"{len(data)}")
    return data


@dataclass(frozen=True, slots=True)
class Key:
    """32 random bytes: a key file, or a recovery key on paper."""

    data: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _key_of(self.data, "key")

    @classmethod
    def new(cls, system: Os = REAL) -> Key:
        return cls(system.random(KEY_LEN))

    def printed(self) -> str:
        """For paper: 11 groups of 5 letters and digits, which contain a check."""
        return _printed(self.data)


@dataclass(frozen=True, slots=True)
class Both:
    """A passphrase and a key: neither alone opens anything."""

    passphrase: Passphrase = field(repr=False)
    key: Key = field(repr=False)


@dataclass(frozen=True, slots=True)
class Recipient:
    """The public half: with it a slot is made that only the private half opens. No secret."""

    public: bytes

    def __post_init__(self) -> None:
        _key_of(self.public, "recipient")

    def printed(self) -> str:
        return f"{_RECIPIENT}:{_printed(self.public)}"


@dataclass(frozen=True, slots=True)
class Identity:
    """The private half of a recipient: can lie in a safe, nothing needs it but a restore."""

    private: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _key_of(self.private, "identity")

    @classmethod
    def new(cls, system: Os = REAL) -> Identity:
        return cls(system.random(KEY_LEN))

    @property
    def recipient(self) -> Recipient:
        return Recipient(primitives.public_of(self.private))

    def printed(self) -> str:
        return f"{_IDENTITY}:{_printed(self.private)}"


Secret = Passphrase | Key | Both | Recipient
"""What a slot can be made for."""
Opener = Passphrase | Key | Both | Identity
"""What a slot can be opened with."""


def _printed(data: bytes) -> str:
    check = hashlib.sha256(data).digest()[:_CHECK_LEN]
    text = base64.b32encode(data + check).decode().rstrip("=")
    return "-".join(text[at : at + _GROUP] for at in range(0, len(text), _GROUP))


def _read_printed(text: str, what: str) -> bytes:
    plain = "".join(text.replace("-", " ").split()).upper()
    if len(plain) != _CHARACTERS:
        raise InvalidRequest(
            what, expected=f"{_CHARACTERS} letters and digits", found=f"{len(plain)}"
        )
    # 0, 1 and 8 are not in the alphabet: they are what people read O, I and B as.
    plain = plain.translate(str.maketrans("018", "OIB"))
    try:
        data = base64.b32decode(plain + "=")
    except (binascii.Error, ValueError):
        raise InvalidRequest(
            what, expected="letters and the digits 2 to 7", found="other characters"
        ) from None
    key = data[:KEY_LEN]
    if not primitives.same(_printed(key).replace("-", "").encode(), plain.encode()):
        raise InvalidRequest(
            what, expected="a key that matches its check", found="a mistyped one", do="compare it"
        )
    return key


def parse(text: str) -> Key | Recipient | Identity:
    """A key as it is printed: small letters, spaces and missing dashes do not matter. Raises InvalidRequest."""
    name, colon, rest = text.strip().partition(":")
    if not colon:
        return Key(_read_printed(name, "recovery key"))
    kinds: dict[str, type[Recipient | Identity]] = {_RECIPIENT: Recipient, _IDENTITY: Identity}
    kind = kinds.get(name.lower())
    if kind is None:
        raise InvalidRequest(
            "key", expected=f"one that begins with {' or '.join(kinds)}", found="another beginning"
        )
    return kind(_read_printed(rest, name.lower()))


def load(path: str, system: Os = REAL, owner: int = 0) -> Key | Recipient | Identity:
    """The key in a file: 32 bytes, or the text of ``printed``. Only a file that nobody else can read. ``owner``: whose
    it may be besides root's and the caller's: that of the store, where root works on another's.

    Raises NotFound, PermissionDenied, InvalidRequest.
    """
    try:
        fd = system.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would not come back
    except OSError as error:
        raise from_os(error, f"key file {path}") from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise NotFound(f"key file {path}", expected="a file", found="something else")
        if found.st_mode & 0o077 or found.st_uid not in (0, os.geteuid(), owner):
            raise PermissionDenied(
                f"key file {path}", expected="a file that only its owner, you or root, can read",
                found=f"mode {stat.S_IMODE(found.st_mode):04o} of user {found.st_uid}", do=f"chmod 600 {path}",
            )  # fmt: skip
        return load_from(fd, f"key file {path}", system)
    finally:
        system.close(fd)


def load_from(fd: int, what: str, system: Os = REAL) -> Key | Recipient | Identity:
    """The key in an open descriptor of a file, whoever else may read it (a credential of the service manager)."""
    try:
        data = system.pread(fd, limits.KEY_FILE_MAX + 1, 0)
    except OSError as error:
        raise from_os(error, what) from None
    if len(data) == KEY_LEN:
        return Key(data)
    try:
        text = data.decode("ascii") if len(data) <= limits.KEY_FILE_MAX else ""
    except UnicodeDecodeError:
        text = ""
    if not text.strip():
        raise InvalidRequest(
            what, expected=f"{KEY_LEN} bytes or a printed key", found=f"{len(data)} other bytes"
        )
    return parse(text)
