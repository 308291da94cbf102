"""What the service needs done and cannot do itself: ``supervise`` does it in a daemon, ``alone`` without one.

Every method is synchronous, may block, may be called from any thread, and raises the errors of the engine's table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from daemon.contract import JobInfo, MountState


class Shown(NamedTuple):
    """What a restore shows of a point: all of it, what is in a directory, or these paths only. ``location``: where it
    is read from, "" for wherever its bytes are."""

    point: str
    path: str = ""
    paths: tuple[str, ...] = ()
    location: str = ""


class Workers(Protocol):
    """The processes that serve mounts."""

    def status(self, name: str) -> tuple[MountState, str, int]:
        """(state, where it is or would be mounted, process id or 0); cheap."""
        ...

    def start(self, name: str) -> None:
        """Serve the mount; returns when it can be used. Harmless when it is."""
        ...

    def stop(self, name: str) -> None:
        """Unmount, and return when everything is committed and the worker has ended. Raises Busy. Harmless when it
        has."""
        ...

    def fence(self, name: str, *, writable: bool) -> None:
        """Let programs change what is in the mount, or not; harmless when it is not served."""
        ...

    def show_restores(self, name: str, show: dict[int, Shown]) -> None:
        """What is under ``restores/`` of the mount from now on, by job; harmless when it is not served."""
        ...


class Jobs(Protocol):
    """What runs jobs. Their rows exist, queued; who runs one calls ``Service.job_started``, ``job_progress`` and, in
    the end, ``job_ended``."""

    def start(self, job: JobInfo) -> None: ...

    def cancel(self, job_id: int) -> None:
        """Have it end soon; harmless when it has."""
        ...


class Exports(Protocol):
    """The NFS server."""

    def apply(self) -> None:
        """Make it agree with what is in the state and the configuration. Raises what went wrong."""
        ...

    def state(self, mount: str, client: str) -> str:
        """active, pending, or failed: why."""
        ...


class Uploads(Protocol):
    """Who sends points to storage locations, by jobs of kind ``upload``."""

    def wake(self, *, waited_for: bool = False) -> None:
        """There may be something to send. ``waited_for``: somebody waits for it, so now, whatever went wrong before;
        where this process sends it itself, it raises what goes wrong."""
        ...


class Reload(Protocol):
    """The configuration file."""

    def reload(self) -> list[str]:
        """Read it again; what was taken, or needs a restart. Raises InvalidRequest, and then nothing changes."""
        ...


@dataclass(frozen=True)
class Ports:
    """All of them."""

    workers: Workers
    jobs: Jobs
    exports: Exports
    config: Reload
    uploads: Uploads


class Hook(Protocol):
    """Of the configuration: a command, run without a shell."""

    @property
    def command(self) -> list[str]: ...
    @property
    def timeout_s(self) -> float: ...


def told_restores(show: dict[int, Shown]) -> dict[str, dict[str, Any]]:
    """What ``show_restores`` is given, as a worker is told it: one from before an upgrade knows point and path only."""
    return {
        str(job): {
            "point": what.point, "path": what.path, **({"paths": what.paths} if what.paths else {}),
            **({"from": what.location} if what.location else {}),
        }
        for job, what in show.items()
    }  # fmt: skip
