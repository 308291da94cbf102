"""A Ceph of one node on loopback, with its RADOS Gateway: a real distributed object store for the tests.

    with Ceph(directory) as ceph:
        ceph.endpoint, ceph.credentials

Monitor, manager, one OSD in memory and the gateway, every port chosen by the kernel, everything in ``directory``:
nothing of a Ceph that the machine may have is touched. Needs the programs of ceph-mon, ceph-mgr, ceph-osd, radosgw and
ceph-common. ``python -m tests.locations.ceph DIRECTORY`` runs one until its input ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

PROGRAMS = ("ceph-mon", "ceph-mgr", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "monmaptool")
START_LIMIT = 240.0  # s: thirteen when nothing else runs
STOP_LIMIT = 20.0

CONF = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon}]
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {top}/keyring
ms bind msgr1 = false
ms bind msgr2 = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
osd crush chooseleaf type = 0
run dir = {top}/run
log file = {top}/log/$name.log
mon cluster log file = {top}/log/cluster.log
pid file = {top}/run/$name.pid
admin socket = {top}/run/$name.asok
crash dir = {top}/crash
mon data avail warn = 1
mon data avail crit = 1
[mon]
mon data = {top}/mon
mgr initial modules =
[mgr]
mgr data = {top}/mgr
[osd]
osd data = {top}/osd
osd objectstore = memstore
memstore device bytes = {bytes}
osd memory target = 1073741824
[client.rgw]
rgw data = {top}/rgw
rgw frontends = beast endpoint=127.0.0.1:{rgw} tcp_nodelay=1
rgw dns name =
rgw bucket quota ttl = 0
rgw cache enabled = false
"""


def missing() -> str:
    """The first program that is not there; empty when all are."""
    return next((one for one in PROGRAMS if shutil.which(one) is None), "")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Ceph:
    """A cluster for as long as the context lasts."""

    def __init__(self, directory: Path, size: int = 4 << 30) -> None:
        self._top = directory
        self._size = size
        self._daemons: list[subprocess.Popen[bytes]] = []
        self.endpoint = ""
        self.credentials = {
            "AWS_ACCESS_KEY_ID": "holdfast" + secrets.token_hex(6),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
        }

    def __enter__(self) -> Ceph:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    # --- starting --------------------------------------------------------------------------------

    def _start(self) -> None:
        for name in ("mon", "mgr", "osd", "rgw", "run", "log", "crash"):
            (self._top / name).mkdir(parents=True, exist_ok=True)
        fsid = str(uuid.uuid4())
        mon, rgw = _free_port(), _free_port()
        (self._top / "ceph.conf").write_text(
            CONF.format(fsid=fsid, mon=mon, rgw=rgw, top=self._top, bytes=self._size)
        )
        self._keys()
        self._run("monmaptool", "--create", "--clobber", "--fsid", fsid,
                  "--addv", "a", f"[v2:127.0.0.1:{mon}]", f"{self._top}/monmap")  # fmt: skip
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", f"{self._top}/monmap",
                  "--keyring", f"{self._top}/keyring")  # fmt: skip
        self._daemon("ceph-mon", "-i", "a")
        self._until("the monitor", lambda: self._ceph("status")["quorum"] == [0])
        self._daemon("ceph-mgr", "-i", "x")
        osd = str(uuid.uuid4())
        self._ceph("osd", "new", osd, "0")
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._daemon("ceph-osd", "-i", "0")
        self._until("the OSD", lambda: self._ceph("osd", "stat")["num_up_osds"] == 1)
        self._daemon("radosgw", "-n", "client.rgw")
        self.endpoint = f"http://127.0.0.1:{rgw}"
        self._until("the gateway", lambda: _listens(rgw))
        self._run("radosgw-admin", "-n", "client.rgw", "user", "create", "--uid=holdfast",
                  "--display-name=holdfast", "--access-key", self.credentials["AWS_ACCESS_KEY_ID"],
                  "--secret-key", self.credentials["AWS_SECRET_ACCESS_KEY"])  # fmt: skip

    def _keys(self) -> None:
        """One keyring for everyone."""
        ring = f"{self._top}/keyring"
        rights = {
            "mon.": ("mon 'allow *'",),
            "client.admin": ("mon 'allow *'", "mgr 'allow *'", "osd 'allow *'", "mds 'allow *'"),
            "mgr.x": ("mon 'allow profile mgr'", "osd 'allow *'", "mds 'allow *'"),
            "osd.0": ("mon 'allow profile osd'", "mgr 'allow profile osd'", "osd 'allow *'"),
            "client.rgw": ("mon 'allow rwx'", "mgr 'allow rw'", "osd 'allow rwx'"),
        }
        self._run("ceph-authtool", "--create-keyring", ring)
        for name, caps in rights.items():
            asked = [
                word
                for cap in caps
                for word in ("--cap", cap.split(" ", 1)[0], cap.split(" ", 1)[1].strip("'"))
            ]
            self._run("ceph-authtool", ring, "--gen-key", "-n", name, *asked)
        entry = Path(ring).read_text()
        key = entry.split("[osd.0]")[1].split("key = ")[1].split()[0]
        (self._top / "osd" / "keyring").write_text(f"[osd.0]\n\tkey = {key}\n")

    def _daemon(self, *command: str) -> None:
        log = (self._top / "log" / f"{command[0]}.out").open("wb")
        with log:
            self._daemons.append(
                subprocess.Popen(
                    [command[0], "-f", "-c", f"{self._top}/ceph.conf", *command[1:]],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._top,
                )
            )

    def _run(self, *command: str) -> str:
        config = (
            ()
            if command[0] in ("monmaptool", "ceph-authtool")
            else ("-c", f"{self._top}/ceph.conf")
        )
        done = subprocess.run(
            [command[0], *config, *command[1:]],
            capture_output=True,
            text=True,
            timeout=START_LIMIT,
            cwd=self._top,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stderr[-2000:]}")
        return done.stdout

    def _ceph(self, *command: str) -> dict[str, object]:
        text = self._run("ceph", "--connect-timeout", "5", "--format", "json", *command)
        return dict(json.loads(text)) if text.strip().startswith("{") else {}

    def _until(self, what: str, there: object) -> None:
        end = time.monotonic() + START_LIMIT
        while True:
            with contextlib.suppress(RuntimeError, KeyError):
                if there():  # type: ignore[operator]
                    return
            for one in self._daemons:
                if one.poll() is not None:
                    raise RuntimeError(f"{one.args[0]} ended with {one.returncode}")  # type: ignore[index]
            if time.monotonic() > end:
                raise RuntimeError(f"{what} is not there after {START_LIMIT:.0f} s")
            time.sleep(0.2)

    # --- stopping --------------------------------------------------------------------------------

    def _stop(self) -> None:
        """The gateway first, the monitor last; what does not end is killed."""
        for one in reversed(self._daemons):
            one.terminate()
            try:
                one.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()
        self._daemons.clear()

    def kill(self) -> None:
        """The gateway's process gone from one moment to the next; ``start`` brings it back."""
        gateway = self._daemons.pop()
        os.kill(gateway.pid, signal.SIGKILL)
        gateway.wait()

    def start(self) -> None:
        """The gateway again, on its port."""
        self._daemon("radosgw", "-n", "client.rgw")
        self._until("the gateway", lambda: _listens(int(self.endpoint.rpartition(":")[2])))

    def fill(self, bucket: str) -> None:
        """That bucket takes no further object, until it is ``free``."""
        scope = ("--quota-scope=bucket", f"--bucket={bucket}")
        self._run("radosgw-admin", "-n", "client.rgw", "quota", "set", "--max-objects=1", *scope)
        self._run("radosgw-admin", "-n", "client.rgw", "quota", "enable", *scope)

    def free(self, bucket: str) -> None:
        self._run("radosgw-admin", "-n", "client.rgw", "quota", "disable", "--quota-scope=bucket",
                  f"--bucket={bucket}")  # fmt: skip


def _listens(port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    with Ceph(Path(sys.argv[1]).absolute()) as cluster:
        told = {"endpoint": cluster.endpoint, "credentials": cluster.credentials}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        sys.stdin.read()
