"""The hooks of tools/hooks, with the real programs, on what drills restore."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.config import Config
from daemon.contract import DrillSpec, JobInfo, MountSpec
from daemon.service import Service
from engine import Store
from engine.live import ROOT
from tests.daemon.service.support import CTX, new_store, put, served, settings
from tools.demolib.commands import Runner, ordinary_account
from tools.demolib.console import Console
from tools.demolib.postgres import WHEEL, Postgres, give

HOOKS = Path(__file__).resolve().parents[3] / "tools" / "hooks"
SCRIPTS = sorted(HOOKS.iterdir())


def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run(
        ["shellcheck", "--severity=style", *SCRIPTS], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_help_and_the_command_line(script: Path) -> None:
    done = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and f"usage: {script.name} " in done.stdout
    assert "hooks.verify" in done.stdout and "Exit status" in done.stdout
    for words in (["--nonsense"], []):
        done = subprocess.run([script, *words], capture_output=True, text=True, timeout=20,
                              env={"PATH": os.environ["PATH"]})  # fmt: skip
        assert done.returncode == 2 and done.stdout.startswith(f"{script.name}: ")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that an ordinary user can come to."""
    path = Path(tempfile.mkdtemp(prefix="hf-vh-", dir="/tmp"))
    path.chmod(0o711)
    (path / "scratch").mkdir(mode=0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def taken(path: str, source: Path, inside: str = "") -> None:
    """A directory becomes what is in the mount, with its empty directories."""
    with Store.open(path) as store:
        tree = store.open_live("m")
        try:
            folders = {b".": tree.mkdir(ROOT, inside.encode(), 0o755, CTX).ino if inside else ROOT}
            for where, inner, names in os.walk(os.fsencode(source)):
                below = os.path.relpath(where, os.fsencode(source))
                for name in inner:
                    key = os.path.normpath(os.path.join(below, name))
                    folders[key] = tree.mkdir(folders[below], name, 0o700, CTX).ino
                for name in names:
                    ino = tree.create(folders[below], name, 0o600, CTX).ino
                    tree.write(ino, 0, Path(os.fsdecode(os.path.join(where, name))).read_bytes())
        finally:
            tree.close()


def drilled(service: Service) -> tuple[JobInfo, str]:
    """The job of a drill, and what its hook said."""
    service.snapshot("m")
    job = service.drill(DrillSpec(point="m@latest", into="scratch"))
    found = service.drills("m")[0]
    said = b"".join(service.attachment(found.output)[1]).decode() if found.output else ""
    return job, said


def serving(place: Path, script: str, *words: str) -> tuple[str, Config]:
    path = str(place / "store")
    new_store(path)
    hook = {"command": [str(HOOKS / script), *words], "timeout_s": 120.0}
    targets = {"scratch": str(place / "scratch")}
    return path, settings(path, {"m": {"hooks": {"verify": hook}}}, restore_targets=targets)


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
def test_disks(place: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    for form in ("qcow2", "raw"):
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", form, disk.with_suffix(f".{form}"), "4M"], check=True, timeout=60
        )  # fmt: skip
    image = disk.with_suffix(".qcow2").read_bytes()
    path, config = serving(place, "verify-qemu-img", "--at-least", "2")
    with served(path, config) as service:
        service.create_mount(MountSpec("m"))
        with Store.open(path) as store:
            tree = store.open_live("m")
            put(tree, "vm/a disk.qcow2", image)
            tree.close()
        job, said = drilled(service)
        assert job.state == "failed" and "expected at least 2 disks, found 1" in said
        with Store.open(path) as store:
            tree = store.open_live("m")
            put(tree, "b.raw", disk.with_suffix(".raw").read_bytes())
            tree.close()
        job, said = drilled(service)
        assert job.state == "done", said
        assert "vm/a disk.qcow2: sound" in said and "2 disks are sound" in said
        damaged = bytearray(image)
        damaged[65536:65544] = b"\xff" * 8  # where its reference counts are
        with Store.open(path) as store:
            tree = store.open_live("m")
            put(tree, "vm/a disk.qcow2", bytes(damaged))
            tree.close()
        job, said = drilled(service)
        assert job.state == "failed" and "1 of 2 disks are damaged" in job.error["message"]
    assert os.listdir(place / "scratch") == []


@pytest.mark.skipif(importlib.util.find_spec(WHEEL) is None, reason="PostgreSQL is not in .venv")
def test_a_cluster(place: Path) -> None:
    account = ordinary_account()
    socket, data = place / "s", place / "cluster"
    for folder in (socket, data):
        folder.mkdir(mode=0o700)
        give(folder, account)
    postgres = Postgres.unpack(Runner(Console(io.StringIO()), place), account, place / "pg", socket)
    initdb = ("initdb", "-D", data, "--username", "demo", "--auth", "reject", "--no-sync")
    postgres.run(*initdb, "--locale", "C")
    words = ["--bin", str(postgres.program("postgres").parent), "--user", "demo", "--amcheck"]
    words += ["--as", account.name] if account else []
    path, config = serving(place, "verify-postgresql", *words)
    with served(path, config) as service:
        service.create_mount(MountSpec("m"))
        taken(path, data, "base")
        job, said = drilled(service)
        assert job.state == "done", said + str(job.error)
        for line in (
            "the server started in", "it answers: 3 databases", "every catalog can be read",
            "pg_amcheck: every table and index is sound",
        ):  # fmt: skip
            assert line in said
        assert service.mount("m").recovery_s > service.drills()[0].verify_s > 0
        with Store.open(path) as store:  # it says that it is of no version
            tree = store.open_live("m")
            put(tree, "base/global/pg_control", b"\0" * 8192)
            tree.close()
        job, said = drilled(service)
        assert job.state == "failed" and "did not start" in job.error["message"]
    assert os.listdir(place / "scratch") == []
