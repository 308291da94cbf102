"""The daemon in the demonstration: begun and committed by curl, written by pg_basebackup and over NFS, restored by API.

A store and a daemon of their own. Everything is asked as a script of a database's administrator asks it: with curl, at
the Phoenix-compatible API, and at the native API's socket.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from tools.demolib.commands import Runner, last_words, stop_process
from tools.demolib.console import DemoError, size_text
from tools.demolib.holdfast import forget_cached, stored_bytes
from tools.demolib.postgres import DATABASE, SUPERUSER, Postgres, Server, give
from tools.demolib.report import Result
from tools.demolib.witness import Tree, compare, content_bytes, note

BASE = "/druva-phoenix/v1"
START_LIMIT_S = 30.0
JOB_LIMIT_S = 120.0
STOP_LIMIT_S = 90.0
DISK_BYTES = 48 << 20  # of the second writer's disk, random: nothing of it is stored already
# What serving NFS needs: the server, a client that needs no kernel, a compiler for what is loaded into the server.
NFS_PROGRAMS = ("ganesha.nfsd", "nfs-cp", "cc")
_POLL_S = 0.1


class ServiceStory:
    """``run`` once, then ``close`` in any case. ``place`` must not exist; the socket lies beside PostgreSQL's."""

    def __init__(self, runner: Runner, command: Path, postgres: Postgres, place: Path) -> None:
        self._runner, self._command, self._postgres = runner, command, postgres
        self._place, self._socket = place, postgres.socket / "api.sock"
        self._store, self._mounts = place / "store", place / "mnt"
        # Only root may serve NFS here.
        self._nfs = os.geteuid() == 0 and all(shutil.which(one) for one in NFS_PROGRAMS)
        self._ports = [free_port() for _ in range(3)]
        self._daemon: subprocess.Popen[bytes] | None = None
        self._server: Server | None = None
        self.result = Result("api", self.title, self.proof)

    @property
    def title(self) -> str:
        how = "over NFS" if self._nfs else "by cp (no NFS server here)"
        return f"the daemon: pg_basebackup between two curl lines, a disk {how}"

    @property
    def proof(self) -> str:
        return "restored through the API; every byte as written, pg_verifybackup"

    def run(self) -> Result:
        """From nothing to a result. Raises DemoError when it cannot go on."""
        self._runner.console.step("the daemon: holdfast serve, with a store of its own")
        self._start()
        self._make_sources()
        for name in ("cluster", "disks"):
            self._native("POST", "/v1/mounts", {"name": name})
            self._native("POST", f"/v1/mounts/{name}/start")
        self._one("cluster", self._write_cluster, self._prove_cluster)
        if self._nfs:
            self._native(
                "POST", "/v1/exports", {"mount": "disks", "client": "127.0.0.1", "squash": "none"}
            )
        self._one("disks", self._write_disk, lambda found: [])
        self.close()
        self.result.stored = stored_bytes(self._store)
        return self.result

    def close(self) -> None:
        """Stop what runs. Harmless to repeat. Raises DemoError when the daemon leaves something mounted."""
        if self._server is not None:
            self._server.stop()
        daemon, self._daemon = self._daemon, None
        if daemon is None:
            return
        daemon.send_signal(signal.SIGTERM)
        try:
            status = self._runner.wait(daemon, "holdfast serve, told to stop", STOP_LIMIT_S)
        finally:
            stop_process(daemon)
        if status:
            raise DemoError(f"holdfast serve: exit status {status}" + self._words())

    # --- one session --------------------------------------------------------------------------------------

    def _one(self, name: str, write: Any, prove: Any) -> None:
        """status, start, write, log, commit; then the way back."""
        console = self._runner.console
        if self._phoenix("GET", f"{name}/backup")["is_reached_max_snapshots"]:
            raise DemoError(f"mount {name} has too many points that wait for their copy")
        path = Path(self._phoenix("POST", f"{name}/backup")["mount_path"])
        console.step(f"curl -X POST …/{name}/backup: write to {path}")
        started = time.monotonic()
        log = write(path)
        self._phoenix(
            "POST", f"{name}/uploadlog", "--form", f"file=@{log}", "--form-string", f"mountpoint={path}",
            "--form-string", "platform=linux",
        )  # fmt: skip
        made = str(self._phoenix("PUT", f"{name}/backup")["snap_name"])
        seconds = time.monotonic() - started
        live = note(path)
        size = content_bytes(live)
        console.detail(f"curl -X PUT …/{name}/backup: {made}; {size_text(size)} in {seconds:.1f} s")
        self.result.points += 1
        self.result.logical += size
        self.result.handed += size
        self.result.ingest_s += seconds
        self._back(name, made.rpartition("_")[0], live, prove)

    def _back(self, name: str, point: str, live: Tree, prove: Any) -> None:
        self._runner.console.step(f"curl -X POST …/v1/restores: {name} to a directory")
        forget_cached(self._store)
        started = time.monotonic()
        job = self._native("POST", "/v1/restores", {"point": point, "place": "back"})
        deadline = started + JOB_LIMIT_S
        while job["state"] in ("queued", "running") and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            job = self._native("GET", f"/v1/restores/{job['id']}")
        if job["state"] != "done":
            raise DemoError(f"restore {job['id']} is {job['state']}: {job['error']}")
        self.result.restore_s += time.monotonic() - started
        self.result.restored += content_bytes(live)
        target = self._place / "back" / str(job["id"])
        found = note(target)
        lines = [f"api, {name}, restored: {line}" for line in compare(live, found)]
        lines += [f"api, {name}: {line}" for line in prove(target)]
        self.result.differences += lines
        for line in lines[:3]:
            self._runner.console.detail(f"DIFFERS {line}")
        if not lines:
            self.result.proven += 1
            self._runner.console.detail(f"{len(found):,} entries equal")
        # As a script gives a restore up; one below a target is removed by that.
        self._phoenix("DELETE", f"{name}/restores/{job['id']}")

    # --- the writers --------------------------------------------------------------------------------------

    def _make_sources(self) -> None:
        """A small cluster of PostgreSQL's own user, running, and a disk."""
        data = self._place / "cluster"
        data.mkdir(mode=0o700)
        give(data, self._postgres.account)
        self._postgres.run(
            "initdb", "-D", data, "--username", SUPERUSER, "--auth", "trust", "--locale", "C", "--no-sync"
        )  # fmt: skip
        self._server = Server(self._postgres, data, self._place / "cluster.log")
        self._server.start()
        address = self._postgres.address()
        self._postgres.run("createdb", *address, DATABASE)
        self._postgres.run("pgbench", *address, "--initialize", "--quiet", "--scale", "2", DATABASE)
        (self._place / "disk.img").write_bytes(os.urandom(DISK_BYTES))

    def _write_cluster(self, path: Path) -> Path:
        """Its user owns the mount, and copies it."""
        give(path, self._postgres.account)
        self._postgres.run(
            "pg_basebackup", *self._postgres.address(), "-D", path / "base", "-c", "fast"
        )
        return path / "base" / "backup_manifest"

    def _prove_cluster(self, restored: Path) -> list[str]:
        try:
            self._postgres.run("pg_verifybackup", "--quiet", restored / "base")
        except DemoError as error:
            return [str(error)]
        return []

    def _write_disk(self, path: Path) -> Path:
        disk, log = self._place / "disk.img", self._place / "copy.log"
        target: str | Path = path / "disk.img"
        if self._nfs:
            _, _, port = self._ports
            target = f"nfs://127.0.0.1{path}/disk.img?nfsport={port}&mountport={port + 1}&version=3"
        finished = self._runner.run(["nfs-cp" if self._nfs else "cp", disk, target])
        log.write_text(finished.out + finished.err + f"{disk} is at {target}\n")
        copied = self._runner.run(["cmp", disk, path / "disk.img"], ok=(0, 1))
        if copied.status:
            self.result.differences.append("api, disks: the mount does not have what was copied")
        return log

    # --- the daemon, and what it is asked -----------------------------------------------------------------

    def _start(self) -> None:
        for folder in (self._place, self._place / "back", self._mounts, self._place / "run"):
            folder.mkdir()
            folder.chmod(0o711)  # PostgreSQL's user passes through
        self._runner.run([self._command, "init"], variables={"HOLDFAST_STORE": str(self._store)})
        native, phoenix, nfs = self._ports
        (self._place / "holdfast.toml").write_text(f"""
store = "{self._store}"
mount_root = "{self._mounts}"
run_dir = "{self._place / "run"}"
restore_targets = {{ back = "{self._place / "back"}" }}
[api]
listen = ["127.0.0.1:{native}"]
socket = "{self._socket}"
[phoenix]
listen = ["127.0.0.1:{phoenix}"]
[log]
format = "plain"
[nfs]
server = "{"ganesha" if self._nfs else "off"}"
port = {nfs}
""")
        with (self._place / "daemon.log").open("ab") as log:
            self._daemon = self._runner.start(
                [self._command, "serve", "--config", self._place / "holdfast.toml"], output=log.fileno()
            )  # fmt: skip
        deadline = time.monotonic() + START_LIMIT_S
        while not self._answers():
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                raise DemoError("holdfast serve does not answer" + self._words())
            time.sleep(_POLL_S)

    def _words(self) -> str:
        return last_words((self._place / "daemon.log").read_text(errors="replace"))

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._ports[1]), timeout=1):
                return self._socket.exists()
        except OSError:
            return False

    def _curl(self, *words: str) -> Any:
        out = self._runner.run(["curl", "--silent", "--show-error", *words], limit=JOB_LIMIT_S).out
        try:
            return json.loads(out or "null")
        except ValueError:
            raise DemoError(f"curl {words[-1]}: the answer is not JSON: {out[:200]}") from None

    def _phoenix(self, method: str, rest: str, *words: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self._ports[1]}{BASE}/mounts/{rest}"
        answer = self._curl("--request", method, *words, url)
        if answer["error_code"]:
            raise DemoError(
                f"{method} {rest}: {answer['error_code']} {answer['error_msg']}" + self._words()
            )
        result: dict[str, Any] = answer["result"]
        return result

    def _native(self, method: str, path: str, content: dict[str, Any] | None = None) -> Any:
        """As root, or whoever the service runs as: the socket asks for no token."""
        words = ["--unix-socket", str(self._socket), "--request", method]
        if content is not None:
            words += ["--header", "content-type: application/json", "--data", json.dumps(content)]
        answer = self._curl(*words, f"http://localhost{path}")
        if isinstance(answer, dict) and "status" in answer and "detail" in answer:
            raise DemoError(f"{method} {path}: {answer['detail']}" + self._words())
        return answer


def free_port() -> int:
    """A port that is free now, and so is the one behind it."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            try:
                other.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
