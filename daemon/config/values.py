"""The kinds of values in the configuration, each a type that says what it allows.

A validator raises ValueError whose text is what was expected; the reader adds where it stands and what was found.
"""

from __future__ import annotations

import ipaddress
import math
import posixpath
import re
from collections.abc import Callable
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BeforeValidator

from engine.errors import InvalidRequest
from engine.registry import valid_name

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
SIZE_MAX = 2**62
DURATION_MAX = 100 * 366 * 86400.0
PATH_MAX = 4095
ID_MAX = 2**32 - 2  # the largest user or group there can be

SIZE = "a size: bytes, or a number with K, M, G, T or P, as '10G'"
DURATION = "a duration: seconds, or a number with s, m, h or d, as '6h'"
PATH = "an absolute path without '..', as '/srv/holdfast'"
LISTEN = "an address and a port, as '127.0.0.1:9091' or '[::1]:9091'"
NETWORK = "an address or a network with its host bits zero, as '10.1.0.0/16' or '::1/128'"
NAME = "1 to 64 letters, digits, dots, dashes or underscores, the first a letter or digit"
USER = "the name of a user, or '' to stay who it was started by"
SOURCE = "'file:/PATH', 'credential:NAME' of systemd, or ''"
IDS = f"a user and a group from 1 to {ID_MAX}, as '65534:65534'"


class Bind(NamedTuple):
    """An address to listen on; port 0 is any that is free."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def everywhere(self) -> bool:
        """Whether it stands for every address of the machine."""
        return ipaddress.ip_address(self.host).is_unspecified


def size(value: object) -> int:
    """Bytes of ``10G`` or a number; powers of 1024. Raises ValueError."""
    if isinstance(value, str):
        found = re.fullmatch(r"([0-9]{1,20}(?:\.[0-9]{1,6})?) ?([KMGTP]?)(?:i?B)?", value)
        if not found:
            raise ValueError(SIZE)
        whole = "." not in found[1]
        value = (int if whole else float)(found[1]) * _UNITS[found[2]]
        value = int(value)
    if type(value) is not int or not 0 <= value <= SIZE_MAX:
        raise ValueError(SIZE)
    return value


def duration(value: object) -> float:
    """Seconds of ``6h`` or a number. Raises ValueError."""
    if isinstance(value, str):
        found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([smhd]?)", value)
        if not found:
            raise ValueError(DURATION)
        value = float(found[1]) * _SECONDS[found[2]]
    if type(value) not in (int, float) or not isinstance(value, int | float):
        raise ValueError(DURATION)
    if not math.isfinite(value) or not 0 <= value <= DURATION_MAX:
        raise ValueError(DURATION)
    return float(value)


def inside(path: str, directory: str) -> bool:
    """Whether a path is that directory or below it, both normal and absolute."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _path(value: str) -> str:
    if (
        not value.startswith("/")
        or ".." in value.split("/")
        or not value.isprintable()
        or len(value.encode()) > PATH_MAX
    ):
        raise ValueError(PATH)
    return "/" + posixpath.normpath(value).lstrip("/")


def _source(value: str) -> str:
    kind, _, rest = value.partition(":")
    if kind == "file":
        return f"file:{_path(rest)}"
    if value and not re.fullmatch(r"credential:[A-Za-z0-9_-][A-Za-z0-9._-]*", value):
        raise ValueError(SOURCE)
    return value


def bind(value: str) -> Bind:
    """Address and port of ``127.0.0.1:9091``. Raises ValueError."""
    found = re.fullmatch(r"(?:([0-9.]{7,15})|\[([0-9A-Fa-f:.]{2,45})\]):([0-9]{1,5})", value)
    try:
        if not found or int(found[3]) > 65535:
            raise ValueError
        return Bind(str(ipaddress.ip_address(found[1] or found[2])), int(found[3]))
    except ValueError:
        raise ValueError(LISTEN) from None


def _listen(value: str) -> str:
    bind(value)
    return value


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("an address, as '127.0.0.1' or '::1'") from None


def _network(value: str) -> str:
    try:
        if not re.fullmatch(r"[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?", value):
            raise ValueError
        return str(ipaddress.ip_network(value))
    except ValueError:
        raise ValueError(NETWORK) from None


def _name(value: str) -> str:
    try:
        return valid_name(value)
    except InvalidRequest:
        raise ValueError(NAME) from None


def _user(value: str) -> str:
    if not re.fullmatch(r"([a-z_][a-z0-9_-]{0,31})?", value):
        raise ValueError(USER)
    return value


def ids(value: str) -> tuple[int, int]:
    """User and group of ``65534:65534``. Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,10}):([0-9]{1,10})", value)
    if not found or not all(0 < int(one) <= ID_MAX for one in found.groups()):
        raise ValueError(IDS)
    return int(found[1]), int(found[2])


def _ids(value: str) -> str:
    ids(value)
    return value


def _command(value: list[str]) -> list[str]:
    if not value or not value[0].startswith("/") or any("\0" in word for word in value):
        raise ValueError("a program by its absolute path and its arguments, as ['/bin/sync', '-f']")
    return value


def optional(check: Callable[[str], str]) -> Callable[[str], str]:
    """The same check, which "" passes."""
    return lambda value: check(value) if value else value


def _whole(least: int, most: int) -> Callable[[int], int]:
    def check(value: int) -> int:
        if not least <= value <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return value

    return check


def _some(value: float) -> float:
    if value <= 0:
        raise ValueError(f"{DURATION}, more than 0")
    return value


Size = Annotated[int, BeforeValidator(size)]
Seconds = Annotated[float, BeforeValidator(duration)]
SomeSeconds = Annotated[float, BeforeValidator(duration), AfterValidator(_some)]
Count = Annotated[int, AfterValidator(_whole(0, 2**40))]
Some = Annotated[int, AfterValidator(_whole(1, 2**31))]
Port = Annotated[int, AfterValidator(_whole(1, 65535))]
Path = Annotated[str, AfterValidator(_path)]
OptionalPath = Annotated[str, AfterValidator(optional(_path))]
Listen = Annotated[str, AfterValidator(_listen)]
Address = Annotated[str, AfterValidator(_address)]
Network = Annotated[str, AfterValidator(_network)]
Name = Annotated[str, AfterValidator(_name)]
Source = Annotated[str, AfterValidator(_source)]
User = Annotated[str, AfterValidator(_user)]
Ids = Annotated[str, AfterValidator(_ids)]
Command = Annotated[list[str], AfterValidator(_command)]
