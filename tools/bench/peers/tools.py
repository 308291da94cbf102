"""borg and restic from the distribution, with the settings people use and the strongest ones."""

import os
import shutil
from pathlib import Path

from tools.bench.measure import run
from tools.bench.peers.base import Delivery, Peer


class Borg(Peer):
    """borg without encryption; `options` are given to ``borg create``."""

    def __init__(self, name: str, *options: str) -> None:
        super().__init__()
        self.name = name
        self.options = options

    def missing(self) -> str | None:
        return None if shutil.which("borg") else "not installed: borg (package borgbackup)"

    def _env(self) -> dict[str, str]:
        return {
            **os.environ,
            "BORG_BASE_DIR": str(self.work / "cache"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }

    def prepare(self, work: Path) -> None:
        super().prepare(work)
        run(["borg", "init", "-e", "none", work / "store"], env=self._env())

    def ingest(self, source: Path, number: int, delivery: Delivery) -> float:
        target = f"{self.work / 'store'}::g{number}"
        command = ["borg", "create", "--sparse", *self.options, target, "."]
        usage = run(command, cwd=source, env=self._env())
        self.saw(usage.peak)
        return usage.seconds

    def restore(self, number: int, target: Path, way: str) -> float:
        command = ["borg", "extract", "--sparse", f"{self.work / 'store'}::g{number}"]
        return run(command, cwd=target, env=self._env()).seconds


class Restic(Peer):
    """restic with its defaults (version 2 repository, compression auto).

    Every generation lies in a directory of its own, so restic reads all of it, as it must when
    a database or a guest wrote its files anew.
    """

    name = "restic"

    def missing(self) -> str | None:
        return None if shutil.which("restic") else "not installed: restic"

    def _env(self) -> dict[str, str]:
        return {
            **os.environ,
            "RESTIC_REPOSITORY": str(self.work / "store"),
            "RESTIC_PASSWORD": "bench",
            "RESTIC_CACHE_DIR": str(self.work / "cache"),
        }

    def prepare(self, work: Path) -> None:
        super().prepare(work)
        run(["restic", "init", "-q", "--repository-version", "2"], env=self._env())

    def ingest(self, source: Path, number: int, delivery: Delivery) -> float:
        command = ["restic", "backup", "-q", "--tag", f"g{number}", "."]
        usage = run(command, cwd=source, env=self._env())
        self.saw(usage.peak)
        return usage.seconds

    def restore(self, number: int, target: Path, way: str) -> float:
        command = [
            "restic",
            "restore",
            "-q",
            "latest",
            "--tag",
            f"g{number}",
            "--target",
            str(target),
        ]
        return run(command, env=self._env()).seconds
