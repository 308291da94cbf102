"""A machine for one test: systemd as process 1 over an overlay of this one's root, with the project installed.

Everything in it is in namespaces of its own. Whoever ends its process 1 ends all of it, and so does the end of the
process that booted it, also by SIGKILL: nothing is left running or mounted. What then may be left are empty control
groups, which the next one takes away.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tools import install

BOOT = Path(__file__).with_name("boot.sh")
GROUPS = Path("/sys/fs/cgroup")
PREFIX = "holdfast-rig-"
LIMIT = 60.0  # s, for any one command: a machine that is busy is slow
PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def interpreter() -> str:
    """One that the service can run and that can use the packages lent: the one that runs the tests, or the system's."""
    try:
        return install.interpreter(sys.executable)
    except install.Refused:
        return install.interpreter("/usr/bin/python3")


def stage(folder: Path) -> None:
    """Install below a folder what `make install` does, but for the packages, which are lent when it is booted.

    Raises Refused where there is no Python for it.
    """
    python = interpreter()
    mask = os.umask(0o022)
    try:
        install.install("/usr/local", str(folder), python, lend)
    finally:
        os.umask(mask)
    for lent in folder.rglob("lent.pth"):
        lent.write_text("/opt/lent\n")


def lend(site: Path) -> None:
    """The packages of the Python that runs the tests; its own editable installation of this tree stays out of it."""
    (site / "lent.pth").write_text(f"{sysconfig.get_path('purelib')}\n")


class Machine:
    """``run`` runs a command in it; ``processes`` finds what runs there."""

    def __init__(self, scratch: Path, staged: Path) -> None:
        self.scratch = scratch
        self.name = f"{PREFIX}{os.getpid()}-{scratch.name}"
        self.pid = 0
        """That of its process 1, out here."""
        sweep()
        scratch.mkdir(exist_ok=True)
        (scratch / "stage").symlink_to(staged)
        self.outside = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", BOOT, scratch, sysconfig.get_path("purelib"),
             self.name],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            wait_until(self._booted, "systemd to be up")
        except BaseException:
            self.stop()
            raise

    def _booted(self) -> bool:
        if self.outside.poll() is not None:
            assert self.outside.stderr is not None
            said = self.outside.stderr.read().decode(errors="replace")
            raise RuntimeError(f"the machine did not boot: {said}")
        children = Path(f"/proc/{self.outside.pid}/task/{self.outside.pid}/children")
        try:
            found = children.read_text().split()
            if not found or Path(f"/proc/{found[0]}/comm").read_text() != "systemd\n":
                return False
        except OSError:  # it has ended, which is told the next time
            return False
        self.pid = int(found[0])
        return self.run("systemctl", "is-active", "rig.target", check=False).strip() == "active"

    def run(self, *command: str, check: bool = True, limit: float = LIMIT) -> str:
        """What a command in it says, which must succeed unless told otherwise; as root."""
        done = subprocess.run(
            ["nsenter", "--target", str(self.pid), "--mount", "--uts", "--ipc", "--net", "--pid",
             "--cgroup", "--", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=limit, cwd="/", check=False,
            env={"PATH": PATH, "LC_ALL": "C.UTF-8", "HOLDFAST_STORE": "/srv/holdfast"},
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(command)} ended with {done.returncode}: {done.stdout}\n{self.journal()}"
            )
        return done.stdout

    def journal(self) -> str:
        """The end of what was logged in it."""
        return self.run("journalctl", "--no-pager", "-o", "cat", "-n", "60", check=False)

    def property(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).strip()

    def processes(self, words: str) -> list[int]:
        """Process ids, as they are out here, of what runs in it with these words in its command line."""
        space = os.readlink(f"/proc/{self.pid}/ns/pid")
        return [pid for pid in living(space) if words in command_line(pid)]

    def main(self, unit: str) -> int:
        """The process id, out here, of a service; 0 if it has none."""
        inside = self.property(unit, "MainPID")
        for pid in living(os.readlink(f"/proc/{self.pid}/ns/pid")):
            with contextlib.suppress(OSError):  # gone meanwhile
                if status(pid, "NSpid").split()[-1] == inside:
                    return pid
        return 0

    def stop(self) -> None:
        """End its process 1, and with it everything in it."""
        for pid in (self.pid, self.outside.pid):
            if pid and self.outside.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.outside.wait(LIMIT)
        if self.outside.stderr:
            self.outside.stderr.close()
        wait_until(lambda: not (sweep(), groups(self.name))[1], "its control group to be empty")


def living(space: str) -> Iterator[int]:
    """The processes of a process id namespace."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "ns" / "pid") == space:
                yield int(entry.name)


def status(pid: int, name: str) -> str:
    """A line of the status of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.partition(":")[2].strip()
    raise LookupError(name)


def command_line(pid: int) -> str:
    """What a process was started with; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def groups(pattern: str) -> list[Path]:
    """The control groups of machines with such names."""
    return [found for top in (GROUPS, GROUPS / "unified") for found in top.glob(pattern)]


def sweep() -> None:
    """Take away the control groups of machines that are no more; those of others that run are busy."""
    for top in groups(f"{PREFIX}*"):
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def wait_until(holds: Callable[[], object], what: str, limit: float = LIMIT) -> None:
    """Ask again and again until it holds."""
    end = time.monotonic() + limit
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"waited {limit:.0f} s in vain for {what}")
        time.sleep(0.05)


def main() -> None:
    """Boot one and stay, until killed: what a test that is interrupted does."""
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    machine = Machine(folder, Path(sys.argv[2]))
    sys.stdout.write(f"{machine.pid}\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main()
