"""What a reload takes, and what waits for a restart."""

from __future__ import annotations

from typing import Any

from daemon.config.models import Config

_FIXED = frozenset({
    "store", "store_key", "store_passphrase", "user", "mount_root", "run_dir", "api.listen", "api.socket", "api.names",
    "phoenix.enabled", "phoenix.listen", "log.format", "nfs.server", "nfs.port", "nfs.bind", "nfs.exports_d",
})  # fmt: skip
"""Where things are, who the process is, and what is listened on: settled when it starts."""
_SERVED = frozenset({"path", "write_through", "root_squash", "squash_to"})
"""Of a mount: what its worker was started with. A restart of that mount takes it."""
_MADE = frozenset({"chunking"})
"""Of a mount: settled when it is made, and never after."""
_TLS = ("api.tls_cert", "api.tls_key", "api.client_ca")
"""Other files are taken; whether there is TLS at all, and whether clients show certificates, is not."""


def reloadable(old: Config, new: Config) -> tuple[list[str], list[str]]:
    """Keys that changed: those a reload takes, and those that need a restart, of the daemon or of the mount they name.

    A mount that one of the two does not name has the defaults there.
    """
    before, after = _flat(old), _flat(new)
    for name in old.mounts.keys() | new.mounts.keys():
        before |= _mount(old, name)
        after |= _mount(new, name)
    taken: list[str] = []
    waiting: list[str] = []
    for key in sorted(before.keys() | after.keys()):
        was, is_ = before.get(key), after.get(key)
        if was != is_:
            (waiting if _waits(key, was, is_) else taken).append(key + _only(key))
    return taken, waiting


def _only(key: str) -> str:
    made = key.startswith("mounts.") and key.rpartition(".")[2] in _MADE
    return " (of mounts made from now on)" if made else ""


def _waits(key: str, was: Any, is_: Any) -> bool:
    if key in _TLS:
        return bool(was) != bool(is_)
    if key.startswith("mounts."):
        return key.rpartition(".")[2] in _SERVED
    return key in _FIXED


def _flat(config: Config) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.model_dump(exclude={"mounts"}).items():
        if key == "restore_targets" or not isinstance(value, dict):
            found[key] = value
        else:
            found |= {f"{key}.{inner}": one for inner, one in value.items()}
    return found


def _mount(config: Config, name: str) -> dict[str, Any]:
    return {f"mounts.{name}.{key}": one for key, one in config.mount(name).model_dump().items()}
