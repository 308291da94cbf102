"""The kernel's own NFS client, in a User-Mode Linux, against mounts exported by this host's Ganesha.

Both are in a network of their own: a tap device in a network namespace that ends with the test's thread.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.contract import ExportInfo
from tests.daemon.export.conftest import Site, killed, why_no_ganesha
from tests.daemon.export.guest import MARK
from tests.daemon.export.support import SCALE
from tests.daemon.export.test_ganesha import noise
from tools.torture.crash.kernel import unneeded

ROOT = Path(__file__).resolve().parents[3]
HERE, THERE = "10.77.0.1", "10.77.0.2"
MIB = 1 << 20
_NEWNET = 0x40000000


def why_no_guest() -> str:
    if why_no_ganesha():
        return why_no_ganesha()
    for program in ("linux.uml", "ip"):
        if shutil.which(program) is None:
            return f"needs a User-Mode Linux: there is no {program}"
    return (
        ""
        if os.path.exists("/dev/net/tun")
        else "needs a User-Mode Linux: there is no /dev/net/tun"
    )


pytestmark = [
    pytest.mark.needs_fuse,
    pytest.mark.skipif(bool(why_no_guest()), reason=why_no_guest() or "-"),
]


class Guest:
    """A machine that is a client."""

    def __init__(self, base: Path) -> None:
        init = base / "init"
        folder = unneeded(base)
        init.write_text(
            "#!/bin/sh\n"
            f"export PATH={shlex.quote(os.environ['PATH'])} PYTHONPATH={shlex.quote(str(ROOT))}\n"
            "export PYTHONDONTWRITEBYTECODE=1\n"
            f"exec {shlex.quote(sys.executable)} -m tests.daemon.export.guest {folder} {THERE}\n"
        )
        init.chmod(0o755)
        self.process = subprocess.Popen(
            [
                "linux.uml", "mem=256M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}",
                f"uml_dir={base}/uml", "vec0:transport=tap,ifname=tap0,depth=128,gro=1", "con=null", "con0=fd:0,fd:1",
                "quiet",
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True, env={**os.environ, "TMPDIR": "/dev/shm"},
        )  # fmt: skip
        assert self._answer() == (0, "ready")

    def _answer(self) -> tuple[int, str]:
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            if MARK in line:
                status, _, printed = line.partition(MARK)[2].strip().partition(" ")
                return int(status), bytes.fromhex(printed).decode(errors="replace")
            said.append(line)
        raise AssertionError("the machine ended: " + "".join(said[-20:]))

    def begin(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def run(self, command: str) -> str:
        """What a shell command printed; it must succeed."""
        self.begin(command)
        return self.result()

    def result(self) -> str:
        status, printed = self._answer()
        assert status == 0, printed
        return printed

    def end(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def apart(act: Callable[[], None]) -> None:
    """Run in a thread that has a network of its own, with a tap device in it."""
    wrong: list[BaseException] = []

    def inside() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare")
            for line in (
                "link set lo up", "tuntap add dev tap0 mode tap", f"addr add {HERE}/24 dev tap0", "link set tap0 up",
            ):  # fmt: skip
                subprocess.run(["ip", *line.split()], check=True)
            act()
        except BaseException as error:  # noqa: BLE001
            wrong.append(error)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    if wrong:
        raise wrong[0]


def options(site: Site, version: str) -> str:
    settings = site.settings
    return (
        f"vers={version},nolock,addr={HERE},proto=tcp,port={settings.port},mountproto=tcp,mountvers=3,"
        f"mountport={settings.mount_port},hard,timeo=30"
    )


def story(site: Site, guest: Guest, version: str) -> None:
    """What a client does; the worker, and then the server, die under it."""
    here = site.path("db") / f"v{version}"
    guest.run(
        f"mkdir n; mount -i -t nfs -o {options(site, version)} {HERE}:{site.path('db')} n && mkdir n/v{version}"
    )
    top = f"n/v{version}"
    size = 8 * MIB * SCALE
    guest.run(
        f"head -c {size} /dev/urandom > data; cp data {top}/in; sync {top}/in; cmp data {top}/in"
    )
    guest.run(
        f"cp {top}/in {top}/again; mv {top}/again {top}/moved; ls -l {top}; cmp data {top}/moved"
    )
    assert (here / "in").read_bytes() == (here / "moved").read_bytes()
    guest.run(f"exec 3<>{top}/moved; rm {top}/moved; cmp data - <&3")
    assert not (here / "moved").exists()
    (here / "local").write_bytes(noise(MIB, 3))
    assert guest.run(f"cat {top}/local | b2sum").split() == _b2sum(noise(MIB, 3)).split()
    for number in range(4):
        guest.run(f"(cp data {top}/w{number}; sync {top}/w{number}) & true")
    guest.run(f"wait; for i in 0 1 2 3; do while ! cmp -s data {top}/w$i; do sleep 0.2; done; done")
    guest.run(f"cp data {top}/before && sync {top}/before {top}")
    site.kill("db")
    site.serve("db")
    site.port.apply()
    guest.run(f"cmp data {top}/before; cp data {top}/after; sync {top}/after; cmp data {top}/after")
    guest.begin(
        f"for i in 1 2 3 4; do cp data {top}/long$i || exit 1; done; sync {top}/long*; cat {top}/long* | wc -c"
    )
    killed(site.server_pid())
    site.port.apply()
    assert int(guest.result()) == 4 * size
    guest.run("umount n; rmdir n")


def _b2sum(data: bytes) -> str:
    done = subprocess.run(["b2sum"], input=data, capture_output=True, check=True)
    return done.stdout.decode()


def test_a_kernel_client_of_both_versions(tmp_path: Path) -> None:
    def inside() -> None:
        site = Site(tmp_path, bind=HERE)
        try:
            site.add("db", ExportInfo("db", THERE, squash="none"))
            site.port.apply()
            guest = Guest(tmp_path)
            try:
                for version in ("3", "4.1"):
                    story(site, guest, version)
            finally:
                guest.end()
        finally:
            site.close()

    apart(inside)
