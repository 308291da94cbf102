"""The process ``ganesha.nfsd``: started, told of changes, started again, ended.

It outlives a daemon that dies, as workers do: it is not what writers should wait for.  A daemon that starts finds it by
its process id and its command line, and takes it over.  What it was told last is kept beside it (``loaded.json``).
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import time
from dataclasses import asdict, dataclass

from daemon.export import ganesha, rpc, shim
from daemon.export.log import KEEP, troubles
from engine.errors import Busy, HoldfastError, PermissionDenied, Unsupported
from engine.seam import Os, save

PROGRAM = "ganesha.nfsd"
START_LIMIT = 20.0  # s until it must answer
STOP_LIMIT = 10.0  # s until it must have ended when told to; then it is killed
RELOAD_LIMIT = 10.0  # s until its log must say that it has read the file again
QUIET = 0.2  # s without a new line in the log: it has said all
_PAUSE = 0.05
_REREAD = "Reread exports complete"


@dataclass(frozen=True)
class Loaded:
    """What a running server was told: its configuration, and by number the path of each export and the device of the
    file system there at that time."""

    config: str
    exports: dict[str, tuple[str, str]]


class Server:
    """One Ganesha with its files in ``folder``, which only root may write. Not for several threads at once."""

    def __init__(self, folder: str, settings: ganesha.Settings) -> None:
        self.settings = settings
        self.folder = folder
        self.recovery = os.path.join(folder, "recovery")
        self._config, self._pid_file, self._log, self._fsids, self._told = (
            os.path.join(folder, name) for name in ("ganesha.conf", "pid", "log", "fsids", "loaded.json")
        )  # fmt: skip
        self._child = (
            0  # the process id of the one that was started here, until it has been waited for
        )
        self._os = Os()

    # --- finding it -------------------------------------------------------------------------------------

    def pid(self) -> int:
        """Its process id while it runs, else 0."""
        if self._child:
            child = self._child
            try:
                if os.waitpid(child, os.WNOHANG)[0] == 0:
                    return child
            except ChildProcessError:
                pass  # another thread was told of its end
            self._child = 0
            return 0
        try:
            with open(self._pid_file, encoding="ascii") as file:
                pid = int(file.read())
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            return pid if os.fsencode(self._config) in words and _runs(pid) else 0
        except (OSError, ValueError):
            return 0

    def loaded(self) -> Loaded | None:
        """What the running server was told; None when none runs or that is not known."""
        if not self.pid():
            return None
        try:
            with open(self._told, encoding="utf-8") as file:
                told = json.load(file)
            exports = {number: (path, device) for number, (path, device) in told["exports"].items()}
            return Loaded(told["config"], exports)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    # --- telling it -------------------------------------------------------------------------------------

    def start(self, wanted: Loaded, identities: str) -> list[str]:
        """Start it with this, ending the one that runs; what it complained of. Raises what keeps it from answering."""
        if os.geteuid() != 0:
            raise PermissionDenied(
                "NFS-Ganesha", expected="root, who may open files by their handles", found=f"user {os.geteuid()}"
            )  # fmt: skip
        program = shutil.which(PROGRAM)
        if program is None or not self.settings.plugins:
            raise Unsupported(
                "exporting", expected=f"the program {PROGRAM} and its {ganesha.PLUGIN}", found="not both",
                do="install nfs-ganesha-vfs",
            )  # fmt: skip
        library = shim.built(self.folder)
        self.stop()
        self._require_free_ports()
        os.makedirs(self.recovery, mode=0o700, exist_ok=True)
        self._write(wanted, identities)
        if os.path.exists(self._log) and os.path.getsize(self._log) > KEEP:
            os.unlink(self._log)
        begin = self._said()
        child = subprocess.Popen(
            [program, "-F", "-L", self._log, "-f", self._config, "-p", self._pid_file],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "LD_PRELOAD": library, "HOLDFAST_FSIDS": self._fsids},
            start_new_session=True,
        )  # fmt: skip
        self._child = child.pid
        child.returncode = 0  # it is waited for by its id, and may outlive us
        self._await_answers(begin)
        self._remember(wanted)
        return troubles(self._tail(begin))

    def reload(self, wanted: Loaded, identities: str) -> list[str]:
        """Have the running one read this; what it complained of. Clients of exports that stay notice nothing."""
        pid = self.pid()
        self._write(wanted, identities)
        begin = self._said()
        os.kill(pid, signal.SIGHUP)
        end = time.monotonic() + RELOAD_LIMIT
        while _REREAD not in self._tail(begin):
            if time.monotonic() > end or not self.pid():
                raise HoldfastError(
                    "NFS-Ganesha", expected="that it reads its configuration", found="no word of it"
                )
            time.sleep(_PAUSE)
        size = -1
        while size != (size := self._said()):
            time.sleep(QUIET)
        self._remember(wanted)
        return troubles(self._tail(begin))

    def stop(self) -> None:
        """End it; returns when it has ended. Clients go on waiting for it."""
        pid = self.pid()
        if pid:
            for number in (signal.SIGTERM, signal.SIGKILL):
                _send(pid, number)
                if self._ended(pid):
                    break
            self.pid()  # waited for
        for path in (self._pid_file, self._told):
            if os.path.exists(path):
                os.unlink(path)

    @staticmethod
    def _ended(pid: int) -> bool:
        try:
            watch = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([watch], [], [], STOP_LIMIT)[0])
        finally:
            os.close(watch)

    def _require_free_ports(self) -> None:
        """Ganesha shares a port with whoever has it already, and each would get some of the clients."""
        settings = self.settings
        for port in (settings.port, settings.mount_port):
            if rpc.listens(settings.bind, port, timeout=1.0):
                raise Busy(
                    "NFS-Ganesha", expected=f"a free port {port} at {settings.bind}", found="another server there",
                    do="stop that one, or choose another port: nfs.port in the configuration",
                )  # fmt: skip

    # --- its files --------------------------------------------------------------------------------------

    def _write(self, wanted: Loaded, identities: str) -> None:
        save(self._os, self._fsids, identities.encode())
        save(self._os, self._config, wanted.config.encode())

    def _remember(self, told: Loaded) -> None:
        save(self._os, self._told, json.dumps(asdict(told)).encode())

    def _said(self) -> int:
        try:
            return os.path.getsize(self._log)
        except OSError:
            return 0

    def _tail(self, begin: int) -> str:
        try:
            with open(self._log, "rb") as file:
                file.seek(begin)
                return file.read(KEEP).decode(errors="replace")
        except OSError:
            return ""

    def _await_answers(self, begin: int) -> None:
        settings = self.settings
        end = time.monotonic() + START_LIMIT
        asked = [(settings.port, rpc.NFS), (settings.mount_port, rpc.MOUNT)]
        while asked:
            if not self.pid():
                raise self._failed(begin, "that it ended")
            port, program = asked[0]
            if rpc.answers(settings.bind, port, program, 3, timeout=1.0):
                asked.pop(0)
            elif time.monotonic() > end:
                raise self._failed(begin, f"no answer at port {port}")
            else:
                time.sleep(_PAUSE)

    def _failed(self, begin: int, found: str) -> HoldfastError:
        said = troubles(self._tail(begin))
        self.stop()
        why = found + (f" ({said[-1]})" if said else "")
        where = f"{self.settings.bind} port {self.settings.port}"
        return HoldfastError(
            "NFS-Ganesha", expected=f"an answer at {where}", found=why, do=f"see {self._log}"
        )


def _runs(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] != b"Z"


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
