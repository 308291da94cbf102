"""The ``Exports`` port for the kernel's own server: a fragment of exports(5) and ``exportfs``."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import uuid
from collections.abc import Callable, Sequence

from daemon.export.plan import NOBODY, Client, Planned, Wanted, planned
from engine.errors import HoldfastError, Unsupported
from engine.seam import Os, save
from fsmount import mounted_at

FRAGMENT = "holdfast.exports"
PROGRAM = "exportfs"
LIMIT = 30.0  # s
_SQUASH = {"root": "root_squash", "all": "all_squash", "none": "no_root_squash"}


class KernelExports:
    """Exports through the kernel of this host; its server is not ours to start or end. Thread-safe."""

    def __init__(self, exports_d: str, wanted: Callable[[], Sequence[Wanted]]) -> None:
        """``exports_d``: the directory of fragments, of which one is ours."""
        self._path = os.path.join(exports_d, FRAGMENT)
        self._wanted = wanted
        self._lock = threading.Lock()
        self._failed: dict[str, str] = {}
        self._trouble = ""
        self._devices: dict[str, tuple[int, int]] = {}

    def apply(self) -> None:
        """Write the fragment and have it read; nothing when it is as it should be. Raises what went wrong."""
        with self._lock:
            try:
                self._apply()
                self._trouble = ""
            except HoldfastError as error:
                self._trouble = str(error)
                raise

    def _apply(self) -> None:
        self._failed = {}
        plans, devices = [], {}
        for one in self._wanted():
            there = mounted_at(one.path) if one.path and one.exports else None
            if there is None:
                continue
            try:
                plans.append(planned(one))
                devices[one.path] = there
            except HoldfastError as error:
                self._failed[one.mount] = str(error)
        text = render(plans)
        if text == self._written() and devices == self._devices:
            return
        if plans or self._written():
            self._write(text)
            self._reexport()
        self._devices = devices

    def state(self, mount: str, client: str) -> str:
        """active, pending, or failed: why."""
        del client
        if mount in self._failed:
            return f"failed: {self._failed[mount]}"
        if self._trouble:
            return f"failed: {self._trouble}"
        here = next((one.path for one in self._wanted() if one.mount == mount), "")
        return "active" if here in self._devices else "pending"

    def close(self) -> None:
        """Take the exports back."""
        with self._lock:
            if self._written():
                os.unlink(self._path)
                self._reexport()
            self._devices = {}

    def _written(self) -> str:
        try:
            with open(self._path, encoding="utf-8") as file:
                return file.read()
        except OSError:
            return ""

    def _write(self, text: str) -> None:
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            save(Os(), self._path, text.encode())
        except OSError as error:
            raise HoldfastError(
                f"writing {self._path}", found=os.strerror(error.errno or 0)
            ) from None

    def _reexport(self) -> None:
        program = shutil.which(PROGRAM)
        if program is None:
            raise Unsupported(
                "exporting", expected=f"the program {PROGRAM}", found="none", do="install nfs-kernel-server"
            )  # fmt: skip
        done = subprocess.run(
            [program, "-ra"], stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, check=False
        )  # fmt: skip
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise HoldfastError(
                "exportfs -ra", found=said[-1] if said else f"status {done.returncode}"
            )


def render(exports: Sequence[Planned]) -> str:
    """The fragment: one line for each mount."""
    lines = ["# Written by Holdfast; changes are overwritten."]
    for one in sorted(exports, key=lambda one: one.path):
        words = " ".join(f"{client}({_options(one, client)})" for client in one.clients)
        lines.append(f"{one.path} {words}")
    return "\n".join(lines) + "\n"


def _options(export: Planned, client: Client) -> str:
    access = "ro" if client.read_only else "rw"
    identity = uuid.uuid5(uuid.NAMESPACE_OID, export.identity)
    return (
        f"{access},sync,no_subtree_check,sec=sys,fsid={identity},{_SQUASH[client.squash]},"
        f"anonuid={NOBODY},anongid={NOBODY}"
    )
