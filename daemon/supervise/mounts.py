"""Which mounts are served, where and how: the configuration, and what was asked for by hand, made one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from daemon.config import Config
from daemon.contract import MountSpec
from daemon.service.alone import worker_options
from daemon.service.mounts import stays_deleted
from daemon.supervise.settings import Settings
from daemon.supervise.workers import Spot
from engine.errors import HoldfastError

if TYPE_CHECKING:
    from daemon.service.service import Service
    from daemon.supervise.exporting import Exporting
    from daemon.supervise.workers import Workers

log = logging.getLogger("holdfast.supervise")


class Mounts:
    """Answers for ``Workers``, and is told by it. Everything but ``incident`` is for threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._service: Service
        self._workers: Workers
        self._exports: Exporting

    def open(self, service: Service, workers: Workers, exports: Exporting) -> None:
        """From now on it can answer."""
        self._service, self._workers, self._exports = service, workers, exports

    # --- for Workers ------------------------------------------------------------------------------------

    def spot(self, name: str) -> Spot:
        """Where and how a mount is to be served now. A place below the root may be made, others are asked for."""
        config = self._settings()
        path = self._service.mount_path(name)
        below = path.startswith(config.mount_root.rstrip("/") + "/")
        options = worker_options(config.mount(name), fenced=not self._service.may_write(name))
        return Spot(path, options, below)

    def served(self, name: str) -> None:
        """A worker has begun to serve."""
        self._service.served(name)

    def moved(self) -> None:
        """What is mounted has changed, or is about to."""
        if self._exports.active:
            self._exports.apply()

    def incident(self, kind: str, thing: str, text: str) -> None:
        """Note one; written by the journal's turns."""
        self._service.store.incidents.note(kind, thing, text)

    # --- the configuration ------------------------------------------------------------------------------

    def prepare(self) -> list[str]:
        """Make the mounts that the configuration names and the store has not; those that are to be served."""
        config = self._settings()
        self._make(config)
        return [one.name for one in self._service.store.mounts() if self._wanted(config, one.name)]

    def _make(self, config: Config) -> None:
        """A mount that was deleted stays so until the file no longer names it, or somebody creates it."""
        deleted = self._service.deleted(config.mounts)
        for name in deleted:
            log.warning("%s", stays_deleted(name))
        for name in config.mounts.keys() - deleted:
            self._made(config, name)

    def remarks(self, config: Config) -> list[str]:
        """What whoever reloads is told beside what has changed."""
        return [stays_deleted(name) for name in self._service.deleted(config.mounts)]

    def _made(self, config: Config, name: str) -> None:
        """One that cannot be made or limited is told, and keeps none of the others."""
        try:
            if self._service.state.wanted.get(name).deleting:
                return
            if name not in {one.name for one in self._service.store.mounts()}:
                self._service.create_mount(MountSpec(name))
                log.info("mount %s: made, as the configuration names it", name)
            self._limited(config, name)
        except HoldfastError as error:
            log.error("mount %s: %s", name, error)
            self.incident("worker_failed", f"mount {name}", str(error))

    def _limited(self, config: Config, name: str) -> None:
        """Limits that the file says hold; what it does not say stays as the mount was made."""
        mount = config.mounts[name]
        known = self._service.store.mount(name)
        quota = mount.quota if "quota" in mount.model_fields_set else known.quota
        files = mount.max_files if "max_files" in mount.model_fields_set else known.files
        if (quota, files) != (known.quota, known.files):
            self._service.store.change_mount(name, quota=quota, files=files)
            log.info("mount %s: quota %d bytes, %d files (0: none)", name, quota, files)

    def _wanted(self, config: Config, name: str) -> bool:
        wanted = self._service.state.wanted.get(name)
        if wanted.deleting:
            return False
        if wanted.running is not None:
            return wanted.running
        return name in config.mounts and config.mounts[name].start

    def follow(self, old: Config, new: Config) -> None:
        """A new configuration holds."""
        served = self._workers.mounted()
        self._make(new)
        for one in self._service.store.mounts():
            try:
                self._brought_about(old, new, one.name, one.name in served)
            except HoldfastError as error:
                log.error("mount %s: %s", one.name, error)
        try:
            self.moved()
        except HoldfastError as error:
            log.error("exports: %s", error)

    def _brought_about(self, old: Config, new: Config, name: str, served: bool) -> None:
        wanted = self._wanted(new, name)
        if wanted and not served:
            self._workers.want(name)
        elif served and not wanted:
            self._workers.stop(name)
        elif served and old.mount(name).outside_sessions != new.mount(name).outside_sessions:
            self._workers.fence(name, writable=self._service.may_write(name))
