"""Programs that work on disk images: dd, qemu-img and qemu-io, and the kernel's ext4 on a loop device."""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.torture.programs.cases import Case, Scene
from tools.torture.programs.stage import run

MIB = 1 << 20
DISK = 32 * MIB
LEAKED = 3  # qemu-img check: clusters that nothing uses; a guest loses nothing by them


def patterned(path: Path, rng: random.Random, size: int = DISK) -> None:
    """A disk image: some data here and there, most of it hole."""
    with path.open("wb") as file:
        for _ in range(20):
            file.seek(rng.randrange(size - MIB) & ~4095)
            file.write(rng.randbytes(rng.choice((4096, 65_536, 300_000))))
        file.truncate(size)


def equal(scene: Scene, one: Path, other: Path) -> None:
    """Fail unless two files have the same bytes."""
    scene.run("cmp", one, other)


def thin(scene: Scene, path: Path, most: int) -> None:
    """Fail when a file takes more than ``most`` bytes."""
    takes = path.stat().st_blocks * 512
    scene.want(takes <= most, f"{path.name} takes {takes} bytes: its holes were filled")


# --- dd ---------------------------------------------------------------------------------------------------


def dd(scene: Scene) -> None:
    """Past the page cache, synchronously, with holes, over what is there."""
    source, rng = scene.local / "source", scene.random("dd")
    patterned(source, rng, 8 * MIB)
    quiet = "status=none"
    for name, words in {
        "plain": ("bs=37k",),
        "direct": ("bs=64k", "oflag=direct"),
        "both": ("bs=256k", "oflag=direct,dsync"),
        "sync": ("bs=1M", "oflag=sync"),
        "fsync": ("bs=128k", "conv=fsync"),
        "nocache": ("bs=1M", "oflag=nocache"),
        "sparse": ("bs=64k", "conv=sparse,fdatasync"),
        "append": ("bs=512k", "oflag=append", "conv=notrunc"),
    }.items():
        path = scene.live / name
        scene.run("dd", f"if={source}", f"of={path}", quiet, *words)
        equal(scene, source, path)
        scene.run("dd", f"if={path}", f"of={scene.local / name}", quiet, "bs=1M", "iflag=direct")
        equal(scene, source, scene.local / name)
    thin(scene, scene.live / "sparse", 5 * MIB)
    path = scene.live / "direct"
    for number in range(
        max(10, scene.rounds(200))
    ):  # direct and buffered writes of one file, in turn
        block = scene.local / "block"
        block.write_bytes(rng.randbytes(4096 * rng.randrange(1, 5)))
        at = rng.randrange(2000)
        words = ("oflag=direct",) if number % 2 else ()
        for target in (path, source):
            flags = words if target is path else ()
            place = (f"of={target}", f"seek={at}", "conv=notrunc", *flags)
            scene.run("dd", f"if={block}", "bs=4k", quiet, *place)
    equal(scene, source, path)
    scene.keep(scene.live)


BLOCK = 4096


def dd_killed(scene: Scene) -> None:
    """``oflag=dsync``: every block that dd has read beyond was synced before; the worker is killed under it."""
    for flags in ("dsync", "direct,dsync"):
        path = scene.live / flags.replace(",", "-")
        old: list[bytes] = []
        for number in range(max(1, scene.rounds(10))):
            rng = scene.random(flags, number)
            sent = [rng.randbytes(BLOCK) for _ in range(rng.randrange(50, 250))]
            done = _fed(scene, path, flags, sent)
            scene.stage.job.count("workers killed")
            scene.stage.mount()
            data = path.read_bytes()
            found = [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
            lost = [at for at in range(done) if found[at : at + 1] != sent[at : at + 1]]
            scene.want(not lost, f"{path.name}: of {done} blocks that were synced not {lost[:10]}")
            for at, block in enumerate(found[done:], done):
                known = [rows[at] for rows in (sent, old) if at < len(rows)]
                scene.want(block in known, f"{path.name}: block {at} is none of what was written")
            scene.stage.job.count("synced blocks checked", done)
            old = found


def _fed(scene: Scene, path: Path, flags: str, blocks: list[bytes]) -> int:
    """Give blocks to dd one by one, kill the worker; how many must be there.

    The pipe holds one block: when block n went into it, n-1 has been taken out, and n-2 been written.
    """
    process = subprocess.Popen(
        ["dd", f"of={path}", f"bs={BLOCK}", "iflag=fullblock", f"oflag={flags}", "conv=notrunc"],
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
    )  # fmt: skip
    assert process.stdin is not None
    fcntl.fcntl(process.stdin.fileno(), fcntl.F_SETPIPE_SZ, BLOCK)
    try:
        for block in blocks:
            process.stdin.write(block)
        scene.stage.kill()
        return len(blocks) - 2
    finally:
        process.kill()
        process.wait()
        process.stdin.close()


# --- qemu -------------------------------------------------------------------------------------------------


def qemu(scene: Scene) -> None:
    """Convert, check, compare, resize, overlay and commit, internal snapshots; raw and qcow2."""
    raw, live = scene.local / "disk.raw", scene.live
    patterned(raw, scene.random("disk"))
    img = "qemu-img"
    for cache in ("none", "directsync", "writeback", "unsafe"):
        scene.run(img, "convert", "-t", cache, "-f", "raw", "-O", "qcow2", raw, live / f"{cache}.qcow2")  # fmt: skip
        sound(scene, live / f"{cache}.qcow2", raw)
    scene.run(img, "convert", "-c", "-f", "raw", "-O", "qcow2", raw, live / "small.qcow2")
    scene.run(img, "convert", "-O", "raw", live / "small.qcow2", live / "disk.raw")
    equal(scene, raw, live / "disk.raw")
    thin(scene, live / "disk.raw", 12 * MIB)
    for how in ("metadata", "falloc", "full"):
        path = live / f"{how}.qcow2"
        scene.run(img, "create", "-q", "-f", "qcow2", "-o", f"preallocation={how}", path, "8M")
        scene.run("qemu-io", "-c", "write -P 7 1M 1M", "-c", "read -vP 7 1M 4k", path)
        sound(scene, path)
    _overlay(scene, raw)
    scene.run(img, "resize", "-q", live / "none.qcow2", "+16M")
    scene.run("qemu-io", "-t", "none", "-c", "write -P 9 40M 1M", live / "none.qcow2")
    scene.run(img, "resize", "-q", "-f", "raw", live / "disk.raw", "48M")
    scene.run("qemu-io", "-t", "none", "-f", "raw", "-c", "write -P 9 40M 1M", live / "disk.raw")
    sound(scene, live / "none.qcow2", live / "disk.raw")
    scene.run(img, "resize", "-q", "--shrink", live / "none.qcow2", "32M")
    sound(scene, live / "none.qcow2", raw)
    scene.keep(live)
    for path in sorted(live.glob("*.qcow2")):
        scene.keep_so(path.parent, lambda found, name=path.name: sound(scene, found / name))  # type: ignore[misc]


def sound(scene: Scene, path: Path, same: Path | None = None) -> None:
    """The image passes qemu-img's own check, and has the same content as another."""
    scene.run("qemu-img", "check", "-q", "-f", "qcow2", path)
    if same is not None:
        scene.run("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", path, same)


def _overlay(scene: Scene, raw: Path) -> None:
    """Writes to an overlay, then committed into its base; the same writes to a plain copy say what it must be."""
    base, over, plain = scene.live / "base.qcow2", scene.live / "over.qcow2", scene.local / "plain"
    scene.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, base)
    scene.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", over)
    scene.run("cp", "--sparse=always", raw, plain)
    rng = scene.random("overlay")
    commands = [w for _ in range(40) for w in ("-c", _write(rng))]
    scene.run("qemu-io", "-t", "none", "-f", "qcow2", *commands, over)
    scene.run("qemu-io", "-f", "raw", *commands, plain)
    scene.run("qemu-img", "snapshot", "-c", "before", base)
    scene.run("qemu-img", "commit", "-q", "-t", "none", over)
    sound(scene, base, plain)
    scene.run("qemu-img", "snapshot", "-a", "before", base)
    sound(scene, base, raw)


def _write(rng: random.Random) -> str:
    at = rng.randrange(DISK - MIB) & ~511
    return f"write -q -P {rng.randrange(1, 256)} {at} {rng.choice((512, 4096, 65_536, 131_072))}"


def qemu_running(scene: Scene) -> None:
    """Recovery points of an image that is being written, as under a running guest that flushes now and then."""
    path = scene.live / "guest.qcow2"
    scene.run("qemu-img", "create", "-q", "-f", "qcow2", path, str(DISK))
    scene.run("qemu-io", "-c", "write -q -P 5 0 1M", "-c", "flush", path)
    for number in range(max(1, scene.rounds(10))):
        rng = scene.random("guest", number)
        lines = []
        for at in range(400):
            lines += [
                _write(rng).replace("write -q", "write -q"),
                *(["flush"] if at % 7 == 0 else []),
            ]
        script = "\n".join([*lines, "write -q -P 5 0 1M", "flush", "quit"]).encode()
        found = scene.meanwhile(lambda script=script: scene.feed(script, "qemu-io", path))  # type: ignore[misc]
        image = found / path.name
        scene.run("qemu-img", "check", "-q", "-f", "qcow2", image, ok=(0, LEAKED))
        scene.run("qemu-img", "check", "-q", "-r", "leaks", image, ok=(0, LEAKED))
        sound(scene, image)
        sound(scene, path)


# --- a file system inside a file --------------------------------------------------------------------------


def loop_ext4(scene: Scene) -> None:
    """An ext4 on a loop device on a file of the mount: used, cut by a recovery point, checked."""
    for direct in ("off", "on"):
        image = scene.live / f"direct-{direct}.img"
        with image.open("wb") as file:
            file.truncate(DISK)
        scene.run("mkfs.ext4", "-q", "-F", image)
        rng = scene.random(direct)
        inside = scene.local / f"inside-{direct}"
        inside.mkdir()
        synced: dict[str, bytes] = {}
        with mounted(image, inside, direct):
            for number in range(10):
                fill(inside, f"before-{number}", rng.randbytes(30_000), synced)
            found = scene.meanwhile(lambda: churn(inside, scene.random("churn"), 150))  # noqa: B023
            _accepted(scene, found / image.name, scene.local / "cut", synced)
            for number in range(10):
                fill(inside, f"after-{number}", rng.randbytes(30_000), synced)
        scene.run("e2fsck", "-fn", image)
        again = scene.local / "again"
        again.mkdir(exist_ok=True)
        with mounted(image, again, direct):
            there(scene, again, synced)
        scene.keep_so(scene.live, lambda found, name=image.name: fsck(scene, found / name))  # type: ignore[misc]


def fsck(scene: Scene, image: Path) -> None:
    """e2fsck finds nothing to do."""
    scene.run("e2fsck", "-fn", image)


def _accepted(scene: Scene, image: Path, place: Path, synced: dict[str, bytes]) -> None:
    """A recovery point of a mounted image is one after a power cut: the journal mends it, what was synced is there."""
    run(["e2fsck", "-p", image], ok=(0, 1))
    scene.run("e2fsck", "-fn", image)
    place.mkdir(exist_ok=True)
    with mounted(image, place, "off"):
        there(scene, place, synced)


def there(scene: Scene, folder: Path, synced: dict[str, bytes]) -> None:
    """Every file that was synced is there and whole."""
    for name, data in synced.items():
        path = folder / name
        scene.want(path.exists() and path.read_bytes() == data, f"{path}: synced, and not there")


def fill(folder: Path, name: str, data: bytes, synced: dict[str, bytes]) -> None:
    """A file, and its directory, synced."""
    with (folder / name).open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    synced[name] = data


def churn(folder: Path, rng: random.Random, count: int) -> None:
    """Files made, overwritten, renamed and removed; some synced."""
    for number in range(count):
        path = folder / f"churn-{rng.randrange(20)}"
        with path.open("wb") as file:
            file.write(rng.randbytes(rng.choice((100, 5000, 90_000))))
            if number % 5 == 0:
                os.fsync(file.fileno())
        if number % 3 == 0:
            path.rename(folder / f"moved-{rng.randrange(20)}")
        elif number % 7 == 0:
            path.unlink()


@contextmanager
def mounted(image: Path, place: Path, direct: str) -> Iterator[None]:
    """The image's file system, at ``place``; nothing is left attached."""
    device = run(["losetup", "--find", "--show", f"--direct-io={direct}", image]).strip()
    try:
        run(["mount", device, place])
        try:
            yield
        finally:
            run(["umount", place])
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


QEMU = ("qemu-img", "qemu-io", "cmp")
KILLED = (Case("dd-dsync-killed", dd_killed, ("dd",)),)
CASES = (
    Case("dd", dd, ("dd", "cmp")),
    Case("qemu-img", qemu, QEMU),
    Case("qemu-running", qemu_running, QEMU),
    Case("loop-ext4", loop_ext4, ("e2fsck",), ("loop",)),
)
