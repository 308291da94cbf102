"""What is to be exported, checked and put in order: the same values make NFS-Ganesha's configuration and the kernel's.

Everything that reaches a configuration file passes here.  Names are those of the one allow-list, addresses are what
``ipaddress`` made of them, paths have no character that either file gives a meaning to.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass

from daemon.contract import ExportInfo
from engine.errors import InvalidRequest
from engine.registry import valid_name

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NOBODY = 65534  # user and group that squashed requests act as
PATH_MAX = 1024  # NFSv3's longest path to mount
EXPORT_IDS = 65_000  # Ganesha's are 16 bits, and 0 is its own; handles carry them
_PATH = re.compile(r"(/[A-Za-z0-9._+@=:-]+)+")


@dataclass(frozen=True)
class Wanted:
    """A mount with its exports. ``identity``: never that of another mount, nor of a later one of the same name.

    ``path``: where it is mounted now; "" while it is not.
    """

    mount: str
    identity: str
    path: str
    exports: tuple[ExportInfo, ...]


@dataclass(frozen=True)
class Client:
    """Addresses, and what they may do."""

    network: Network
    read_only: bool
    squash: str

    def __str__(self) -> str:
        """As NFS servers write it: a single address without its length."""
        single = self.network.prefixlen == self.network.max_prefixlen
        return str(self.network.network_address if single else self.network)


@dataclass(frozen=True)
class Planned:
    """One mount as servers are told of it. ``fsid``: what handles name its file system by, 64 bits, never 0.

    ``clients``: those with the longest prefix first, since servers take the first that matches.
    """

    mount: str
    identity: str
    path: str
    fsid: int
    clients: tuple[Client, ...]


def network(text: str) -> Network:
    """The addresses a client is given as. Raises InvalidRequest."""
    try:
        return ipaddress.ip_network(text, strict=True)
    except ValueError:
        raise InvalidRequest(
            "client of an export", expected="an address or a network such as 192.0.2.0/24", found=repr(text),
            do="name addresses: names of hosts can be forged",
        ) from None  # fmt: skip


def checked_path(path: str) -> str:
    """The path, if configuration files can say it. Raises InvalidRequest."""
    if (
        len(path) > PATH_MAX
        or not _PATH.fullmatch(path)
        or any(part in (".", "..") for part in path.split("/"))
    ):
        raise InvalidRequest(
            f"path to export {path!r}", expected="an absolute path of letters, digits and . _ + @ = : -",
            do="mount it elsewhere: mounts.NAME.path in the configuration",
        )  # fmt: skip
    return path


def fsid_of(identity: str) -> int:
    """The identity of a file system in 64 bits."""
    number = int.from_bytes(_hashed(identity)[:8])
    return number or 1


def _hashed(identity: str) -> bytes:
    return hashlib.sha256(identity.encode()).digest()


def planned(wanted: Wanted) -> Planned:
    """One mount, checked. Raises InvalidRequest."""
    clients = [
        Client(network(one.client), one.read_only, _squash(one.squash)) for one in wanted.exports
    ]
    clients.sort(key=lambda one: (-one.network.prefixlen, one.network.version, str(one.network)))
    return Planned(
        valid_name(wanted.mount), wanted.identity, checked_path(wanted.path), fsid_of(wanted.identity), tuple(clients)
    )  # fmt: skip


def _squash(word: str) -> str:
    if word not in ("root", "all", "none"):
        raise InvalidRequest("squash", expected="root, all or none", found=repr(word))
    return word


def numbered(identities: list[str], known: dict[str, int]) -> dict[str, int]:
    """A number from 1 for each: those they have already, and for others the next free one from where they hash to."""
    found = dict(known)
    taken = set(found.values())
    for identity in sorted(set(identities) - found.keys()):
        if len(taken) >= EXPORT_IDS:
            raise InvalidRequest("exports", expected=f"at most {EXPORT_IDS} mounts", found="more")
        number = int.from_bytes(_hashed(identity)[8:16]) % EXPORT_IDS
        while number + 1 in taken:
            number = (number + 1) % EXPORT_IDS
        found[identity] = number + 1
        taken.add(number + 1)
    return found
