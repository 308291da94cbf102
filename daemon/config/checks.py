"""What no single value shows: paths inside each other, ports taken twice, listeners that are open to the world.

Paths are compared as they are written: a symbolic link among them is not followed, for looking at a path may hang on a
mount whose worker does not answer.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from itertools import combinations

from daemon.config.models import Config
from daemon.config.values import Bind, inside

Key = tuple[str | int, ...]
Found = Iterator[tuple[Key, str]]
SOCKET_MAX = 107  # bytes the kernel takes for the path of a Unix socket


def problems(config: Config) -> list[tuple[Key, str]]:
    """What does not go together: the key that should change, and why."""
    return [
        *_places(config), *_mounts(config), *_ports(config), *_api(config), *_phoenix(config),
        *_exports(config),
    ]  # fmt: skip


def _places(config: Config) -> Found:
    store = config.store
    for key, path in (("mount_root", config.mount_root), ("run_dir", config.run_dir)):
        if inside(path, store):
            yield (key,), f"{key}: expected a path outside the store {store}, found {path}"
    targets: dict[Key, str] = {
        ("restore_targets", name): path for name, path in config.restore_targets.items()
    }
    if config.drills.into:
        targets["drills", "into"] = config.drills.into
    for where_it_stands, path in targets.items():
        name = ".".join(map(str, where_it_stands))
        if inside(path, store) or inside(store, path):
            yield (
                where_it_stands,
                f"{name}: expected a path neither inside nor around the store {store}, found {path}",
            )
        for mount, where in _paths(config).items():
            if inside(path, where):
                yield (
                    where_it_stands,
                    f"{name}: {path} is inside the mount mounts.{mount}; choose another",
                )
    if len(config.api_socket().encode()) > SOCKET_MAX:
        key = "api.socket" if config.api.socket else "run_dir"
        yield (
            tuple(key.split(".")),
            f"{key}: expected at most {SOCKET_MAX} bytes in a socket's path, found {config.api_socket()}",
        )


def _paths(config: Config) -> dict[str, str]:
    root = config.mount_root.rstrip("/")
    return {name: mount.path or f"{root}/{name}" for name, mount in config.mounts.items()}


def _mounts(config: Config) -> Found:
    paths = _paths(config)
    for name, path in paths.items():
        key: Key = ("mounts", name, "path")
        if inside(path, config.store):
            yield (
                key,
                f"mounts.{name}.path: expected a path outside the store {config.store}, found {path}",
            )
        elif inside(config.store, path):
            yield (
                key,
                f"mounts.{name}.path: {path} would hide the store {config.store}; choose another",
            )
        elif inside(config.run_dir, path):
            yield (
                key,
                f"mounts.{name}.path: {path} would hide run_dir {config.run_dir}; choose another",
            )
        if config.mounts[name].squash_to != "65534:65534" and not config.mounts[name].root_squash:
            key = ("mounts", name, "squash_to")
            yield (
                key,
                f"mounts.{name}.squash_to: expected root_squash = true beside it, found false",
            )
    for (one, first), (other, second) in combinations(paths.items(), 2):
        key = ("mounts", other, "path")
        if first == second:
            yield (
                key,
                f"mounts.{other}.path: {second} is also the path of mounts.{one}; choose another",
            )
        elif inside(first, second) or inside(second, first):
            yield (
                key,
                f"mounts.{other}.path: {second} and {first} of mounts.{one} are inside each other; choose others",
            )


def _ports(config: Config) -> Found:
    binds: list[tuple[Key, str, Bind]] = []
    for table, found in (("api", config.api.binds()), ("phoenix", config.phoenix.binds())):
        binds += [((table, "listen", n), f"{table}.listen", one) for n, one in enumerate(found)]
    if config.nfs.server == "ganesha":
        binds.append((("nfs", "port"), "nfs.port", Bind(config.nfs.bind, config.nfs.port)))
    for (_, name, one), (key, other, two) in combinations(binds, 2):
        same = one.host == two.host or one.everywhere or two.everywhere
        if one.port == two.port != 0 and same:
            yield key, f"{other}: port {two.port} is also that of {name}; choose another"


def _api(config: Config) -> Found:
    api = config.api
    if bool(api.tls_cert) != bool(api.tls_key):
        here, there = ("tls_cert", "tls_key") if api.tls_cert else ("tls_key", "tls_cert")
        yield (
            ("api", here),
            f"api.{here}: expected api.{there} beside it, found none; write both or neither",
        )
    if api.client_ca and not api.tls_cert:
        yield (
            ("api", "client_ca"),
            "api.client_ca: expected api.tls_cert beside it, found none; write both or neither",
        )
    for number, one in enumerate(api.binds()):
        if not (one.loopback or api.tls_cert or api.insecure_plain):
            yield (
                ("api", "listen", number),
                f"api.listen: {api.listen[number]} is reached from other machines: expected api.tls_cert and"
                " api.tls_key, found none; write them, or insecure_plain = true if tokens may be read on the way",
            )


def _phoenix(config: Config) -> Found:
    phoenix = config.phoenix
    allowed = [ipaddress.ip_network(one) for one in phoenix.allow]
    for number, one in enumerate(phoenix.binds()):
        if not one.loopback and all(network.is_loopback for network in allowed):
            yield (
                ("phoenix", "listen", number),
                f"phoenix.listen: {phoenix.listen[number]} is reached from other machines: expected their addresses in"
                " phoenix.allow, found only this machine's; write them",
            )
    for number, network in enumerate(allowed):
        if phoenix.enabled and not network.prefixlen and not phoenix.token_required:
            yield (
                ("phoenix", "allow", number),
                f"phoenix.allow: {network} is everyone: expected the addresses of clients, or token_required = true",
            )


def _exports(config: Config) -> Found:
    for name, mount in config.mounts.items():
        clients: set[str] = set()
        for number, export in enumerate(mount.exports):
            key: Key = ("mounts", name, "exports", number)
            if config.nfs.server == "off":
                yield (
                    key,
                    f"mounts.{name}.exports: expected nfs.server = 'ganesha' or 'kernel', found 'off'",
                )
            if export.client in clients:
                yield (
                    (*key, "client"),
                    f"mounts.{name}.exports: {export.client} is there twice; write it once",
                )
            clients.add(export.client)
