"""Ports for a store that no daemon has: workers in the background as by hand, jobs in this process, no exports."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import fsmount
from daemon.contract import JobInfo, MountState
from daemon.service import work
from daemon.service.jobs import told
from daemon.service.ports import Ports, Shown, told_restores
from daemon.service.service import Service
from daemon.state import State
from engine.errors import HoldfastError, NotFound, Unsupported
from engine.home import refuse_unknown
from engine.progress import Report, silent
from engine.registry import valid_name
from fsmount.remote import revived

if TYPE_CHECKING:
    from daemon.config import Config, Mount

_NO_DAEMON = "start the daemon with 'holdfast serve'"


class Unsaid:
    """What a configuration says of a mount that it does not name: the defaults of ``config.Mount``."""

    quota = 0
    max_files = 0
    chunking = "auto"
    open_files = "label"
    outside_sessions = "write"
    lock_for = 0.0
    hooks: Mapping[str, Any] = MappingProxyType({})
    exports = ()

    def __getattr__(self, name: str) -> Any:
        from daemon.config import Mount

        return getattr(Mount(), name)


class Unwritten:
    """The configuration of a store that no file speaks of, as ``config.Config`` has it.

    What reads configurations takes longer to import than most commands run: it is imported for what is not said here.
    """

    def __init__(self, store: str) -> None:
        self.store = store

    mounts: Mapping[str, Any] = MappingProxyType({})

    def mount(self, name: str) -> Unsaid:
        valid_name(name)
        return Unsaid()

    def __getattr__(self, name: str) -> Any:
        from daemon.config import Config

        return getattr(Config(store=os.path.abspath(self.store)), name)


def worker_options(policy: Mount, *, fenced: bool) -> fsmount.Options:
    """How a mount of this policy is served. ``fenced``: so that nothing is written before who may is known."""
    uid, gid = policy.squash_ids()
    return fsmount.Options(
        writeback=not policy.write_through, root_squash=policy.root_squash, squash_uid=uid, squash_gid=gid,
        fenced=fenced,
    )  # fmt: skip


class Workers:
    """Workers found by their sockets. ``places``: where a mount goes, before what the configuration says; ``service``
    is set once there is one."""

    def __init__(
        self, store_path: str, config: Callable[[], Config], places: Mapping[str, str]
    ) -> None:
        self._store = store_path
        self._config = config
        self._places = places
        self.service: Service | None = None

    def _place(self, name: str) -> str:
        return self._places.get(name) or self._config().mount_path(name)

    def status(self, name: str) -> tuple[MountState, str, int]:
        try:
            told = fsmount.request(self._store, name, "status", timeout=2.0)
        except NotFound:
            return "stopped", self._place(name), 0
        except HoldfastError:
            return "failed", self._place(name), 0
        state: MountState = told["state"]
        return state, str(told["mountpoint"]), int(told["pid"])

    def start(self, name: str) -> None:
        if self.status(name)[0] == "stopped":
            assert self.service is not None, "workers are started through a service"
            fenced = not self.service.may_write(name)
            options = worker_options(self._config().mount(name), fenced=fenced)
            fsmount.start_background(self._store, name, None, self._place(name), options)

    def stop(self, name: str) -> None:
        state, where, _ = self.status(name)
        if state != "stopped":
            fsmount.unmount(where)

    def fence(self, name: str, *, writable: bool) -> None:
        self._tell(name, "fence", writable=writable)

    def show_restores(self, name: str, show: dict[int, Shown]) -> None:
        self._tell(name, "restores", show=told_restores(show))

    def _tell(self, name: str, operation: str, **arguments: object) -> None:
        try:
            client = fsmount.client(self._store, name)
        except NotFound:
            return
        with client:
            client.request(operation, **arguments)


class Jobs:
    """Jobs run where they are started, to their end; ``service`` is set once there is one."""

    def __init__(self, report: Report) -> None:
        self.service: Service | None = None
        self._report = report

    def start(self, job: JobInfo) -> None:
        assert self.service is not None, "jobs are started through a service"
        self.service.job_started(job.id)
        try:
            result = work.run(self.service.store, job, self._report)
        except HoldfastError as error:
            found = work.result_of(error)
            self.service.job_ended(job.id, "failed", error=told(error), result=found)
        except BaseException:
            self.service.job_ended(job.id, "cancelled")
            raise
        else:
            self.service.job_ended(job.id, "done", result=result)

    def cancel(self, job_id: int) -> None:
        raise Unsupported(
            f"cancelling job {job_id}", expected="a daemon", found="none", do=_NO_DAEMON
        )


class Exports:
    """There is nobody to serve them."""

    def apply(self) -> None:
        raise Unsupported("exports", expected="a daemon", found="none", do=_NO_DAEMON)

    def state(self, mount: str, client: str) -> str:
        return "pending: no daemon runs"


class Uploads:
    """Points are sent by who waits for them, in this process; the others when somebody asks for it."""

    def __init__(self) -> None:
        self.service: Service | None = None

    def wake(self, *, waited_for: bool = False) -> None:
        if waited_for:
            assert self.service is not None, "points are made through a service"
            for one in self.service.locations():
                if one.queued + one.uploading and not one.paused:
                    job = self.service.start_job("upload", {"location": one.name})
                    if job.error:
                        raise revived(job.error["kind"], job.error["message"])


class Reload:
    """There is nobody to tell."""

    def reload(self) -> list[str]:
        raise Unsupported(
            "reloading the configuration", expected="a daemon", found="none", do=_NO_DAEMON
        )


def service(
    store_path: str, config: Config, *, places: Mapping[str, str] | None = None, report: Report = silent
) -> Service:  # fmt: skip
    """The service of a store without a daemon. Close it, and its ``state`` after it."""
    refuse_unknown(store_path)  # of what is given by mistake nothing is made
    state = State.open(store_path)
    jobs = Jobs(report)
    workers = Workers(store_path, lambda: config, places or {})
    uploads = Uploads()
    ports = Ports(workers, jobs, Exports(), Reload(), uploads)
    try:
        made = Service(store_path, state, lambda: config, ports)
    except BaseException:
        state.close()
        raise
    jobs.service = workers.service = uploads.service = made
    return made
