"""Attacks on one mount: each is a client that goes on until it is stopped, and what it needs before.

Two attackers play the same attack: one on the victim's store, one, as busy, on a store of its own.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from engine import Store, codec, limits
from engine.errors import QuotaExceeded
from engine.live import ROOT, Ctx
from tools.torture.users.agents import Child
from tools.torture.users.ground import Ground, Mounted
from tools.torture.users.model import BOB

MIB = limits.MIB
OWNER = Ctx(BOB.uid, BOB.gid)
UNDER_WAY = 0.15  # s after which an attack is at full strength
Client = Callable[[Path, int], None]


@dataclass(frozen=True)
class Attack:
    """``prepare`` makes what is there before, through the engine; ``client`` attacks for ever."""

    name: str
    prepare: Callable[[Ground, int], None]
    client: Client
    full: int = 0  # size of what is prepared, at full size
    quota: int = 0
    hung: bool = False  # the worker is stopped, not the client

    @property
    def mount(self) -> str:
        """Name of the attacked mount."""
        return f"evil-{self.name.replace(' ', '-')}"

    def lay(self, near: Ground, far: Ground, size: int) -> None:
        """What is there before, on both stores, of which nobody has either open."""
        near.create(self.mount, self.quota or None)
        self.prepare(near, size)
        shutil.rmtree(far.store)
        shutil.copytree(near.store, far.store)


class Attacker:
    """One attack under way on one store. Made paused."""

    def __init__(self, attack: Attack, place: Ground) -> None:
        self._attack = attack
        self._mounted: Mounted = place.mount(attack.mount)
        os.chmod(self._mounted.where, 0o777)
        self._children = [
            Child(BOB, lambda seed=seed: attack.client(self._mounted.where, seed))  # type: ignore[misc]
            for seed in range(2)
        ]
        try:
            time.sleep(UNDER_WAY)
            self.pause()
        except BaseException:
            self.kill()
            raise

    def _signal(self, number: int) -> None:
        for child in self._children:
            os.kill(child.pid, number)

    def go(self) -> None:
        """Attack; a hung worker is stopped wherever it is."""
        if self._attack.hung:
            self._signal(signal.SIGCONT)
            time.sleep(random.uniform(0.02, 0.1))
            self._mounted.process.send_signal(signal.SIGSTOP)
        else:
            self._signal(signal.SIGCONT)
            time.sleep(UNDER_WAY)

    def pause(self) -> None:
        """Stand still, with nothing left to be written."""
        if self._attack.hung:
            self._mounted.process.send_signal(signal.SIGCONT)
        self._signal(signal.SIGSTOP)
        # Of a mount that is full, writes are lost to those who made them, and its barrier says so.
        with suppress(QuotaExceeded) if self._attack.quota else nullcontext():
            self._mounted.request("barrier")

    def kill(self) -> None:
        """Whatever happened: no client stays."""
        for child in self._children:
            child.end()

    def end(self) -> None:
        """For good."""
        self._mounted.process.send_signal(signal.SIGCONT)
        for child in self._children:
            said = child.said()
            if said:
                raise RuntimeError(f"attacker {self._attack.name} gave up: {said!r}")
            child.end()
        self._mounted.end()


def _nothing(place: Ground, size: int) -> None:
    """An empty mount will do."""


def _tiny(place: Ground, size: int) -> None:
    """So many tiny files in one directory."""
    with Store.open(str(place.store)) as store:
        tree = store.open_live("evil-tiny-files")
        home = tree.mkdir(ROOT, b"many", 0o777, OWNER).ino
        for number in range(size):
            ino = tree.create(home, b"%d" % number, 0o644, OWNER).ino
            if not number % 10:
                tree.opened(ino, os.O_RDWR)
                tree.write(ino, 0, b"%d" % number)
                tree.released(ino)
            if tree.over_limit():
                tree.wait_room()
        tree.close()


def _more_tiny(where: Path, seed: int) -> None:
    """Make tiny files without end, remove others, list now and then."""
    number = 0
    home = where / f"more{seed}"
    with suppress(FileExistsError):
        home.mkdir()
    while True:
        number += 1
        with (home / str(number)).open("wb", buffering=0) as file:
            file.write(b"%d" % number)
        if number > 500 and not number % 3:
            (home / str(number - 500)).unlink()
        if not number % 5_000:
            with os.scandir(where / "many") as entries:
                for at, _ in enumerate(entries):
                    if at > 20_000:
                        break


def _deep(place: Ground, size: int) -> None:
    """Directories within each other."""
    with Store.open(str(place.store)) as store:
        tree = store.open_live("evil-deep-trees")
        above = ROOT
        for _ in range(size):
            above = tree.mkdir(above, b"deep", 0o777, OWNER).ino
        tree.create(above, b"f", 0o666, OWNER)
        tree.close()


def _in_the_deep(where: Path, seed: int) -> None:
    """Go down as far as it leads, make things there, move the bottom about."""
    os.chdir(where)
    with suppress(FileNotFoundError):
        while True:
            os.chdir("deep")
    number = 0
    while True:
        number += 1
        name = f"{seed}-{number}"
        os.makedirs(f"{name}/x/y")
        with open(f"{name}/f", "wb") as file:
            file.write(os.urandom(300))
        os.rename(f"{name}/x", f"{name}/z")
        with suppress(OSError):  # one that is not empty stays
            os.rename(name, str(where / f"up{seed}-{number % 50}"))


def _extents(place: Ground, size: int) -> None:
    """A file in as many pieces as overwriting can leave it in."""
    with Store.open(str(place.store)) as store:
        tree = store.open_live("evil-extents")
        ino = tree.create(ROOT, b"pieces", 0o666, OWNER).ino
        tree.opened(ino, os.O_RDWR)
        chance = random.Random(size)
        span = size * 16_384
        for number in range(size):
            tree.write(ino, chance.randrange(span // 512) * 512, b"%016d" % number)
            if tree.over_limit():
                tree.wait_room()
            if not number % 5_000:
                tree.fsync(ino)
        tree.released(ino)
        tree.close()


def _more_extents(where: Path, seed: int) -> None:
    """Overwrite a little everywhere, and sync often."""
    chance = random.Random(seed)
    fd = os.open(where / "pieces", os.O_RDWR)
    size = max(os.fstat(fd).st_size, 1 << 20)
    number = 0
    while True:
        number += 1
        os.pwrite(fd, b"%016d" % number, chance.randrange(size // 512) * 512)
        if not number % 200:
            os.fsync(fd)


def _full(where: Path, seed: int) -> None:
    """Write where there is no room, again and again."""
    number = 0
    while True:
        number += 1
        try:
            with (where / f"f{seed}-{number % 20}").open("wb", buffering=0) as file:
                for _ in range(8):
                    file.write(os.urandom(MIB // 2))
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise


def _syncing(where: Path, seed: int) -> None:
    """Small writes, each synced: the worker is in a commit most of the time."""
    fd = os.open(where / f"synced{seed}", os.O_RDWR | os.O_CREAT, 0o600)
    while True:
        os.pwrite(fd, os.urandom(4096), 0)
        os.fsync(fd)


def _equal(place: Ground, size: int) -> None:
    """What collides is made by the client, with the key of the victim's store."""
    identity = json.loads((place.store / "format.json").read_text())
    KEYS.append(bytes.fromhex(identity["id_key"]))


KEYS: list[bytes] = []


def _colliding(where: Path, seed: int) -> None:
    """Contents whose chunk ids begin alike, under names of the greatest length that differ only at the end.

    More than a byte of equal hash takes longer to find than to write; without the key, which no user has, not that.
    """
    key = KEYS[0]
    wanted = 0
    number = seed << 40
    home = where / ("n" * 200 + str(seed))
    home.mkdir()
    while True:
        number += 1
        data = b"%032d" % number
        if codec.chunk_id(key, data)[0] == wanted:
            with (home / ("x" * 240 + f"{number:015d}")).open("wb", buffering=0) as file:
                file.write(data)
                os.fsync(file.fileno())


ATTACKS = (
    Attack("syncing", _nothing, _syncing),
    Attack("tiny files", _tiny, _more_tiny, full=1_000_000),
    Attack("hung", _nothing, _syncing, hung=True),
    Attack("filled", _nothing, _full, quota=8 * MIB),
    Attack("extents", _extents, _more_extents, full=100_000),
    Attack("deep trees", _deep, _in_the_deep, full=4_000),
    Attack("equal prefixes", _equal, _colliding),
)
