"""Where the key of a sealed store comes from when a caller gives none, and how a child process gets it.

In this order: the store was opened by this process before; its parent opened it, and handed over what it had; a
configuration named it; the environment names files; somebody can be asked. No key is in an argument, in the
environment itself, or in a log.
Nothing here imports cryptography before a sealed store is met.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from engine import limits
from engine.errors import InvalidRequest, NotFound, PermissionDenied, from_os

if TYPE_CHECKING:
    from engine.keys import Identity, Key, Master, Opener, Recipient

KEY_FILE, PASSPHRASE_FILE = "HOLDFAST_KEY_FILE", "HOLDFAST_PASSPHRASE_FILE"
"""Each the path of a file, or ``credential:NAME`` of systemd; both: the store wants both."""
_HANDED = (
    "HOLDFAST_KEY_FD"  # an open descriptor of a file in memory: store id and master key, repeated
)
_ID_LEN, _ITEM = 16, 48
PASSPHRASE_MAX = 4 * limits.KIB  # bytes of its file

_lock = threading.Lock()
_known: dict[
    bytes, list[bytes]
] = {}  # store id -> master keys: stores made of each other have one id
_given: list[Opener] = []
_asker: list[Callable[[str], Opener | None]] = []


def remember(store: bytes, master: bytes) -> None:
    """A store was opened: this process, and those it starts, open it again without being told how."""
    with _lock:
        known = _known.setdefault(store, [])
        if master not in known:
            known.insert(0, master)


def forget(store: bytes = b"", master: bytes = b"") -> None:
    """Forget the key of a store that is no more; without one the keys of all, and who can be asked."""
    with _lock:
        if store:
            known = _known.get(store, [])
            if master in known:
                known.remove(master)
            return
        _known.clear()
        _given.clear()
        _asker.clear()


def give(opener: Opener) -> None:
    """Have this process open stores with it."""
    with _lock:
        _given.append(opener)


def asking(ask: Callable[[str], Opener | None]) -> None:
    """``ask(path of the store)`` when nothing else tells: a person at a terminal. None: there is none."""
    with _lock:
        _asker[:] = [ask]


def offers(store: bytes, path: str) -> Iterator[Opener | Master]:
    """What may open a store, the cheapest first. Raises what is wrong with the files that are named."""
    from engine.keys import Master

    _take_over()
    with _lock:
        known = list(_known.get(store, ()))
    for master in known:
        yield Master(master)
    yield from list(_given)
    found = named(os.environ.get(KEY_FILE, ""), os.environ.get(PASSPHRASE_FILE, ""))
    if found is None and _asker:
        found = _asker[0](path)
    if found is not None:
        yield found


def named(key_file: str, passphrase_file: str) -> Opener | None:
    """What is in files, or credentials, of these names; "" for none; with both, the store wants both.

    Raises NotFound, PermissionDenied, InvalidRequest.
    """
    if not key_file and not passphrase_file:
        return None
    from engine.keys import Both, Identity, Key, Passphrase, Recipient

    passphrase = Passphrase(passphrase_of(passphrase_file)) if passphrase_file else None
    if not key_file:
        return passphrase
    key = key_of(key_file)
    if isinstance(key, Recipient):
        raise InvalidRequest(key_file, expected="a key, or the private key of a recipient",
                             found="a public key", do="name the file that begins with identity:")  # fmt: skip
    if passphrase is None:
        return key
    if isinstance(key, Identity):
        raise InvalidRequest(key_file, expected="a key beside a passphrase", found="a recipient's",
                             do="name one of the two")  # fmt: skip
    assert isinstance(key, Key)
    return Both(passphrase, key)


def key_of(name: str) -> Key | Recipient | Identity:
    """The key in a file, or in a credential of systemd."""
    from engine import keys

    path, credential = _place(name)
    if not credential:
        return keys.load(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise from_os(error, name) from None
    try:
        return keys.load_from(fd, name)  # who may read it is for systemd to say
    finally:
        os.close(fd)


def passphrase_of(name: str) -> str:
    """The one line of a file that nobody else can read, or of a credential; ends of lines after it do not count.

    Raises NotFound, PermissionDenied, InvalidRequest.
    """
    path, credential = _place(name)
    return passphrase_in(path, f"passphrase file {name}", vouched=credential)


def passphrase_in(path: str, what: str, *, vouched: bool = False) -> str:
    """As ``passphrase_of``, of a plain path. ``vouched``: somebody else sees to who reads it."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(PASSPHRASE_MAX + 1)
    except OSError as error:
        raise from_os(error, what) from None
    if stat.S_ISREG(mode) and mode & 0o077 and not vouched:
        raise PermissionDenied(
            what, expected="a file that nobody else can read", found=f"mode {stat.S_IMODE(mode):04o}",
            do=f"chmod 600 {path}",
        )  # fmt: skip
    return passphrase_line(raw, what)


def passphrase_line(raw: bytes, what: str) -> str:
    """The passphrase that is all of these bytes, read in one way wherever they come from. Raises InvalidRequest."""
    try:
        text = raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        text = ""
    if not text or "\n" in text or len(raw) > PASSPHRASE_MAX:
        raise InvalidRequest(what, expected="a passphrase as its only line, UTF-8", found="none")
    return text


def _place(name: str) -> tuple[str, bool]:
    """(path, whether systemd sees to who reads it)."""
    kind, colon, rest = name.partition(":")
    if kind == "file" and colon:
        return rest, False
    if kind != "credential" or not colon:
        return name, False
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder or not rest or "/" in rest or rest.startswith("."):
        raise NotFound(
            name, expected="a credential of the service manager", found="no directory of them" if not folder else "",
            do=f"add LoadCredential={rest}:/PATH to the unit",
        )  # fmt: skip
    return os.path.join(folder, rest), True


# --- child processes ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def handing() -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
    """(variables, descriptors) a child process is to have, so that it opens the stores this process has opened. The
    descriptor is of memory, not of a file, and closed here when the child has been started."""
    with _lock:
        data = b"".join(store + one for store, known in _known.items() for one in known)
    if not data:
        yield {_HANDED: ""}, ()
        return
    fd = os.memfd_create("holdfast", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
        yield {_HANDED: str(fd)}, (fd,)
    finally:
        os.close(fd)


def _take_over() -> None:
    """What the parent handed over, once; then it is nobody's but this process's."""
    with _lock:
        named = os.environ.pop(_HANDED, "")
        if not named.isdecimal():
            return
        try:
            data = os.pread(int(named), os.fstat(int(named)).st_size, 0)
            os.close(int(named))
        except OSError:
            return  # no child of a process that has a store open: the files tell
    for at in range(0, len(data) - _ITEM + 1, _ITEM):
        remember(data[at : at + _ID_LEN], data[at + _ID_LEN : at + _ITEM])
