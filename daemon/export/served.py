"""The ``Exports`` port for NFS-Ganesha: decides what the server must be told, with the least disturbance.

- A new client, mount or limit: the server reads its file again; nobody else notices.
- A mount whose worker was started again is another file system at the same path, and the server has the old one
  open: it is started again.  Clients wait meanwhile and go on with the handles they have.
- A mount is taken out before it is unmounted, for the server has its root open.
- A path at which nothing of ours is mounted is never exported: it would be the host's own directory.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from daemon.export import ganesha, log
from daemon.export.plan import Planned, Wanted, numbered, planned
from daemon.export.server import Loaded, Server
from engine.errors import HoldfastError
from engine.seam import Os, save
from fsmount import mounted_at

_FIRST = "EXPORT {"


@dataclass(frozen=True)
class Numbered:
    """A mount to be exported, its number, and the device of the file system that is mounted there."""

    number: int
    plan: Planned
    device: str


class GaneshaExports:
    """Exports through one Ganesha. Thread-safe; every call may block."""

    def __init__(
        self, folder: str, settings: ganesha.Settings, wanted: Callable[[], Sequence[Wanted]]
    ) -> None:
        """``folder`` is made; only root may write there. ``wanted`` gives every mount that has exports."""
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._folder = folder
        self._settings = settings
        self._wanted = wanted
        self._server = Server(folder, settings)
        self._lock = threading.Lock()
        self._failed: dict[str, str] = {}  # by mount
        self._trouble = ""  # of the whole server

    def apply(self) -> None:
        """Make the server agree with what is wanted; cheap when it does. Call it when mounts or exports have changed,
        and now and then: a server that died is started again. Raises what keeps the server from serving; what is wrong
        with one export alone is its ``state``."""
        with self._lock:
            try:
                self._apply()
                self._trouble = ""
            except HoldfastError as error:
                self._trouble = str(error)
                raise

    def state(self, mount: str, client: str) -> str:
        """active, pending (its mount is not served now), or failed: why."""
        del client  # they come and go with their mount
        if mount in self._failed:
            return f"failed: {self._failed[mount]}"
        if self._trouble:
            return f"failed: {self._trouble}"
        loaded = self._server.loaded()
        paths = {path for path, _ in loaded.exports.values()} if loaded else set()
        here = next((one.path for one in self._wanted() if one.mount == mount), "")
        return "active" if here in paths else "pending"

    def close(self) -> None:
        """End the server; clients wait for the next one."""
        with self._lock:
            self._server.stop()

    # --- deciding ---------------------------------------------------------------------------------------

    def _apply(self) -> None:
        wanted = [one for one in self._wanted() if one.exports]
        self._failed = {}
        loaded = self._server.loaded()
        if not wanted:
            if self._server.pid():
                self._server.stop()
            return
        present = self._present(wanted)
        told = self._text(present)
        if loaded is None or self._must_restart(loaded, told):
            self._note(self._server.start(told, _identities(present)), told, present)
            return
        staying = present + self._gone_for_a_moment(wanted, present, loaded)
        told = self._text(staying)
        if told != loaded:
            self._note(self._server.reload(told, _identities(staying)), told, staying)

    def _present(self, wanted: Sequence[Wanted]) -> list[Numbered]:
        """Those that are mounted now."""
        numbers = self._numbers([one.identity for one in wanted])
        found = []
        for one in wanted:
            device = _device(one.path)
            if not device:
                continue
            try:
                found.append(Numbered(numbers[one.identity], planned(one), device))
            except HoldfastError as error:
                self._failed[one.mount] = str(error)
        return found

    def _gone_for_a_moment(
        self, wanted: Sequence[Wanted], present: Sequence[Numbered], loaded: Loaded
    ) -> list[Numbered]:
        """Exports whose worker is being started again: taken out, their clients would be told that their files are
        gone."""
        here = {one.plan.path for one in present}
        numbers = self._numbers([one.identity for one in wanted])
        devices = {(number, path): device for number, (path, device) in loaded.exports.items()}
        return [
            Numbered(
                numbers[one.identity], planned(one), devices[str(numbers[one.identity]), one.path]
            )
            for one in wanted
            if one.path not in here
            and one.mount not in self._failed
            and (str(numbers[one.identity]), one.path) in devices
        ]

    def _must_restart(self, loaded: Loaded, told: Loaded) -> bool:
        """Whether it cannot be told: how it listens, another path of an export, another file system at a path."""
        if loaded.config.partition(_FIRST)[0] != told.config.partition(_FIRST)[0]:
            return True
        both = loaded.exports.keys() & told.exports.keys()
        return any(loaded.exports[number] != told.exports[number] for number in both)

    def _text(self, exports: Sequence[Numbered]) -> Loaded:
        exports = sorted(exports, key=lambda one: one.plan.path)
        config = ganesha.render(
            self._settings, self._server.recovery, [(one.number, one.plan) for one in exports]
        )
        return Loaded(config, {str(one.number): (one.plan.path, one.device) for one in exports})

    def _note(self, said: Sequence[str], told: Loaded, exports: Sequence[Numbered]) -> None:
        plans = [one.plan for one in exports]
        for path, why in log.blamed(said, told.config, plans).items():
            for plan in plans:
                if plan.path == path:
                    self._failed[plan.mount] = why

    def _numbers(self, identities: list[str]) -> dict[str, int]:
        """The number of each, kept for ever: handles carry it."""
        path = os.path.join(self._folder, "numbers.json")
        try:
            with open(path, encoding="utf-8") as file:
                known: dict[str, int] = json.load(file)
        except FileNotFoundError:
            known = {}
        except ValueError:
            raise HoldfastError(
                f"numbers of exports in {path}", expected="JSON", found="other bytes",
                do="bring the file back, or remove it: then clients that have something mounted must mount again",
            ) from None  # fmt: skip
        found = numbered(identities, known)
        if found != known:
            save(Os(), path, json.dumps(found, indent=0).encode())
        return found


def _identities(exports: Sequence[Numbered]) -> str:
    return ganesha.identities([one.plan for one in exports])


def _device(path: str) -> str:
    """The device of the live mount there; "" when there is none."""
    there = mounted_at(path) if path else None
    return f"{there[0]}:{there[1]}" if there else ""
