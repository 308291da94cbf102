"""Credentials of storage locations: where they come from, and that nobody sees them.

A source is ``environment``, ``file:/PATH`` (lines KEY=VALUE, mode 0600) or ``credential:NAME`` (a credential of
systemd, the same lines). Keys are the usual ones (``KNOWN``). A variable of the environment with ``HOLDFAST_`` before
it wins over one without, and then nothing of the same server is taken from those without.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping

from engine import limits
from engine.errors import InvalidRequest, NotFound, PermissionDenied, from_os

KNOWN = {
    "AWS": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    "GOOGLE": ("GOOGLE_SERVICE_ACCOUNT_KEY",),
    "AZURE": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_KEY"),
}
_ALL = frozenset(key for keys in KNOWN.values() for key in keys)
_OURS = "HOLDFAST_"
_LINE = re.compile(r"(?:export )?(?P<key>[A-Z][A-Z0-9_]*)=(?P<value>.*)\Z")
_CREDENTIAL = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\Z")


class Credentials(Mapping[str, str]):
    """Keys and their values; what is printed of it are the names of the keys, and where they are from."""

    __slots__ = ("_values", "source")

    def __init__(self, values: Mapping[str, str], source: str) -> None:
        self._values = dict(values)
        self.source = source

    def __getitem__(self, key: str) -> str:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Credentials({', '.join(sorted(self._values)) or 'none'}; from {self.source})"

    def __reduce__(self) -> str:
        raise TypeError("credentials go nowhere else")

    @classmethod
    def load(cls, source: str, environment: Mapping[str, str] | None = None) -> Credentials:
        """Those of a source; raises InvalidRequest, NotFound, PermissionDenied."""
        environment = os.environ if environment is None else environment
        kind, _, rest = source.partition(":")
        if source == "environment":
            return cls(_of_environment(environment), source)
        if kind == "file" and rest.startswith("/"):
            return cls(_of_file(rest, source), source)
        if kind == "credential" and _CREDENTIAL.match(rest):
            folder = environment.get("CREDENTIALS_DIRECTORY")
            if not folder:
                raise NotFound(
                    source,
                    expected="CREDENTIALS_DIRECTORY, set by systemd",
                    do=f"add LoadCredential={rest}:/PATH to the unit",
                )
            return cls(_of_file(os.path.join(folder, rest), source, given=True), source)
        raise InvalidRequest(
            "source of credentials",
            expected="environment, file:/PATH or credential:NAME",
            found=repr(kind) if rest else "something else",
        )


def _of_environment(environment: Mapping[str, str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for keys in KNOWN.values():
        ours = {key: found for key in keys if (found := environment.get(_OURS + key))}
        usual = {key: found for key in keys if (found := environment.get(key))}
        values |= ours or usual
    return values


def _of_file(path: str, source: str, *, given: bool = False) -> dict[str, str]:
    """The lines of a file that only its owner can read (``given``: by systemd, which sees to that itself)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise from_os(error, f"credentials {source}") from None
    try:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            raise InvalidRequest(f"credentials {source}", expected="a file", found="something else")
        if not given and (state.st_mode & 0o077 or state.st_uid not in (0, os.geteuid())):
            raise PermissionDenied(
                f"credentials {source}",
                expected="a file that nobody but its owner can read (mode 0600), of this user or root",
                found=f"mode {stat.S_IMODE(state.st_mode):04o}, user {state.st_uid}",
                do=f"chmod 600 {path}",
            )
        data = os.read(fd, limits.CREDENTIALS_MAX + 1)
    finally:
        os.close(fd)
    if len(data) > limits.CREDENTIALS_MAX:
        raise InvalidRequest(
            f"credentials {source}",
            expected=f"{limits.CREDENTIALS_MAX} bytes at most",
            found="more",
        )
    return _parse(data, source)


def _parse(data: bytes, source: str) -> dict[str, str]:
    """KEY=VALUE lines; no error says what is in one."""
    values: dict[str, str] = {}
    for number, raw in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.match(line)
        key = match["key"].removeprefix(_OURS) if match else ""
        if match is None or key not in _ALL:
            raise InvalidRequest(
                f"credentials {source}, line {number}",
                expected=f"KEY=VALUE with one of {', '.join(sorted(_ALL))}",
                found="something else",
            )
        value = match["value"]
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        if key in values or not value:
            raise InvalidRequest(
                f"credentials {source}, line {number}",
                expected=f"one value of {key}",
                found="none" if not value else "a second one",
            )
        values[key] = value
    return values
