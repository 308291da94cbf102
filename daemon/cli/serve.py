"""The command serve: the daemon, in the foreground."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
from typing import TYPE_CHECKING, cast

import click

from engine import home, supply
from engine.errors import NotFound, from_os

if TYPE_CHECKING:
    from daemon.config import Config
    from daemon.mounter.client import Mounter
    from daemon.supervise.daemon import Front, Parts

CONFIG = "/etc/holdfast/holdfast.toml"


@click.command()
@click.option(
    "--config", default=CONFIG, show_default=True, envvar="HOLDFAST_CONFIG", metavar="FILE",
    help="The configuration.",
)  # fmt: skip
@click.option(
    "--leave-mounts", is_flag=True,
    help="When told to stop, let the mounts be served on; the next daemon takes them over.",
)  # fmt: skip
def serve(config: str, leave_mounts: bool) -> None:
    """Serve the mounts, the API and the schedules that FILE names, until SIGTERM; SIGHUP reads it again.

    \b
      holdfast config example > /etc/holdfast/holdfast.toml
      holdfast serve
    """
    # Only here: all of the service is imported, and no other command needs it.
    import trio

    from daemon.config import load
    from daemon.observe import logs
    from daemon.supervise.daemon import Daemon

    found = load(config)
    logs.setup(found.log.level, found.log.format)
    opener = supply.named(found.store_key, found.store_passphrase)  # perhaps only root may read it
    if opener is not None:
        home.refuse_unsealed(found.store)
        supply.give(opener)
    path = os.path.abspath(config)
    exporter = _exporter(path, found)
    mounter = _mounter(path, found)

    async def main() -> None:
        await Daemon(
            path, found, _front, mounter=mounter, exporter=exporter, leave_mounts=leave_mounts
        ).run()

    try:
        trio.run(main)
    finally:
        if mounter is not None:
            mounter.close()
        if exporter is not None:
            exporter.close()


def _front(parts: Parts) -> Front:
    from daemon.http.front import Front as Http
    from daemon.supervise.numbers import Numbers

    service = parts.service
    made = Http(
        parts.config, service, service.state, parts.audit, Numbers(service, parts.workers), service.clock,
        parts.changes,
    )  # fmt: skip
    return cast("Front", made)


def _exporter(path: str, config: Config) -> socket.socket | None:
    """The connection to who has the NFS server for us: a child that stays root while we become another user."""
    if os.geteuid() != 0 or not config.user or config.nfs.server == "off":
        return None
    from daemon.export.asked import spawn

    return spawn(path)


def _mounter(path: str, config: Config) -> Mounter | None:
    """Who mounts for us: as root with another user to become, a child that stays root; else one that listens already,
    or nobody. From here on this process has no privilege, if ``user`` says so."""
    from daemon.mounter.client import Mounter

    listening = os.path.join(config.run_dir, "mounter.sock")
    if os.geteuid() != 0:
        return Mounter.connect(listening) if os.path.exists(listening) else None
    if not config.user:
        _folder(config.run_dir, 0, 0)
        return None
    import fsmount
    from daemon.mounter.child import spawn

    try:
        who = pwd.getpwnam(config.user)
    except KeyError:
        raise NotFound(f"user {config.user!r}", expected="a user of this machine", found="none",
                       do="make it, or correct 'user' in the configuration") from None  # fmt: skip
    for place in (config.run_dir, config.mount_root):
        _folder(place, who.pw_uid, who.pw_gid)
    child = spawn([], who.pw_uid, who.pw_gid, config=path)
    fsmount.become(who.pw_uid, who.pw_gid)
    return Mounter(child.socket)


def _folder(path: str, uid: int, gid: int) -> None:
    """One that is not there is made, for this user."""
    try:
        with contextlib.suppress(FileExistsError):
            os.makedirs(path, mode=0o755)
            os.chown(path, uid, gid)
    except OSError as error:
        raise from_os(error, path) from None


COMMANDS = (serve,)
