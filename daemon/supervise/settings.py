"""The configuration as it holds now, and its reload."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from daemon.config import Config, load, reloadable
from daemon.config.models import Keep

log = logging.getLogger("holdfast.supervise")

Check = Callable[[Config], None]
Follow = Callable[[Config, Config], None]


class Settings:
    """Call it for the configuration. ``checks`` are called with a new one and may refuse it; ``followers`` with the
    old and the new once it holds, and raise nothing; ``remarks`` then say what else there is to know. Thread-safe."""

    def __init__(self, path: str, config: Config) -> None:
        self._path = path
        self._config = config
        self._lock = threading.Lock()
        self.checks: list[Check] = []
        self.followers: list[Follow] = []
        self.remarks: list[Callable[[Config], list[str]]] = []

    def __call__(self) -> Config:
        return self._config

    def reload(self) -> list[str]:
        """Read the file again; a line for each key that changed. Raises InvalidRequest, and then nothing changes."""
        with self._lock:
            old = self._config
            said = load(self._path)
            taken, waiting = reloadable(old, said)
            new = held_back(old, said, waiting)
            for check in self.checks:
                check(new)
            self._config = new
            for follow in self.followers:
                follow(old, new)
        lines = [f"{key}: taken" for key in taken]
        for key in waiting:
            whose = f"mount {key.split('.')[1]}" if key.startswith("mounts.") else "the daemon"
            lines.append(f"{key}: needs a restart of {whose}")
        lines += [line for remark in self.remarks for line in remark(new)]
        log.info("configuration read again: %s", "; ".join(lines) or "nothing changed")
        return lines


def held_back(old: Config, new: Config, waiting: list[str]) -> Config:
    """The new configuration, but for what waits for a restart of the daemon. What waits for that of a mount is in it:
    its next worker takes it."""
    update: dict[str, object] = {}
    for key in waiting:
        table, _, field = key.partition(".")
        if table == "mounts":
            continue
        if field:
            part = update.get(table, getattr(new, table))
            update[table] = part.model_copy(update={field: getattr(getattr(old, table), field)})  # type: ignore[attr-defined]
        else:
            update[table] = getattr(old, table)
    return new.model_copy(update=update)


def keeps_all(keep: Keep) -> bool:
    """Whether retention has nothing to do."""
    return not keep.last and not keep.within_s
