"""Programs that copy trees: rsync, tar, cp, cpio, zip.

The oracle is the program itself on an ordinary file system: the same work done there must give the same tree.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tools.torture.programs.cases import Case, Scene, notes
from tools.torture.programs.inputs import change_tree, change_unseen, grant, make_tree

FILES = 600  # in a tree at full size


def source(scene: Scene, *, plain: bool = False) -> Path:
    """A new tree outside the mount."""
    root = scene.local / "source"
    make_tree(root, scene.random("tree"), max(24, scene.rounds(FILES)), plain=plain)
    return root


def rsync(scene: Scene, root: Path, target: Path, *options: str) -> str:
    """Copy a tree's members; what rsync said."""
    exact = "--modify-window=-1"  # else times that differ by less than a second are the same to it
    return scene.run("rsync", "-aHAX", exact, *options, f"{root}/", f"{target}/")


def rsync_inplace(scene: Scene) -> None:
    """A mirror kept by overwriting in place and deleting; then copied back."""
    root, copy, back = source(scene), scene.live / "copy", scene.local / "back"
    rsync(scene, root, copy, "--inplace")
    scene.same(notes(root), copy, "allocated")  # --inplace alone writes holes out
    for day in range(2):
        change_tree(root, scene.random("day", day))
        rsync(scene, root, copy, "--inplace", "--delete")
        scene.same(notes(root), copy, "allocated")
    left = rsync(scene, root, copy, "--delete", "--dry-run", "--itemize-changes")
    scene.want(not left.strip(), f"rsync would still change\n{left}")
    rsync(scene, copy, back, "--sparse")
    scene.same(notes(root), back)
    scene.keep(copy)


def rsync_sparse(scene: Scene) -> None:
    """Holes stay holes, with and without --inplace, and --checksum finds what times do not show."""
    root, copy, other = source(scene), scene.live / "copy", scene.live / "other"
    rsync(scene, root, copy, "--sparse")
    rsync(scene, root, other, "--sparse", "--inplace")
    # Over --inplace it asks to punch holes, is refused, and writes zeros.
    scene.same(notes(root), other, "allocated")
    change_tree(root, scene.random("day"))
    rsync(scene, root, copy, "--sparse", "--delete-after", "--delay-updates")
    scene.same(notes(root), copy)
    hidden = change_unseen(root, scene.random("unseen"))
    said = rsync(scene, root, copy, "--sparse", "--checksum", "--delete", "--out-format=%n")
    changed = sum(not line.endswith("/") for line in said.splitlines())
    scene.want(changed >= hidden, f"--checksum found {changed} of {hidden} changed files")
    scene.same(notes(root), copy)
    scene.keep(copy)
    scene.keep(other)


def rsync_linked(scene: Scene) -> None:
    """Generations that share unchanged files as hard links (--link-dest)."""
    root = source(scene)
    previous: list[str] = []
    for day in range(3):
        copy = scene.live / f"day-{day}"
        rsync(scene, root, copy, "--sparse", *previous)
        scene.same(notes(root), copy)
        previous = [f"--link-dest={copy}"]
        change_tree(root, scene.random("day", day))
    scene.keep(scene.live)


def tar(scene: Scene) -> None:
    """Packed into a file on the mount, unpacked there; and the mount's tree packed and unpacked elsewhere."""
    root = source(scene)
    keep = ("--sparse", "--xattrs", "--xattrs-include=*", "--acls", "--format=pax")
    packed, again = scene.live / "tree.tar", scene.local / "again.tar"
    plain, copy, back = scene.local / "plain", scene.live / "copy", scene.local / "back"
    scene.run("tar", *keep, "-C", root, "-cf", packed, ".")
    for file, target in ((packed, plain), (packed, copy)):
        target.mkdir()
        scene.run("tar", *keep, "-C", target, "-xpf", file)
    scene.same(notes(plain), copy)
    scene.run("tar", *keep, "-C", copy, "--compare", "-f", packed)
    scene.run("tar", *keep, "-C", copy, "-cf", again, ".")
    back.mkdir()
    scene.run("tar", *keep, "-C", back, "-xpf", again)
    scene.same(notes(plain), back)
    (scene.live / "unpacked over").mkdir()  # unpacking again replaces every file by a new one
    for _ in range(2):
        scene.run("tar", *keep, "-C", scene.live / "unpacked over", "-xpf", packed)
    scene.same(notes(plain), scene.live / "unpacked over")
    scene.keep(scene.live)


def cp(scene: Scene) -> None:
    """Into the mount, inside it with --reflink, and out of it."""
    root = source(scene)
    plain, into = scene.local / "plain", scene.live / "into"
    scene.run("cp", "-a", "--sparse=always", root, plain)
    scene.run("cp", "-a", "--sparse=always", root, into)
    scene.same(notes(plain), into)
    scene.run("cp", "-a", "--reflink=auto", into, scene.live / "inside")
    scene.same(notes(plain), scene.live / "inside", "allocated")  # it finds holes by SEEK_HOLE only
    scene.run("cp", "-a", "--sparse=always", into, scene.local / "back")
    scene.same(notes(plain), scene.local / "back")
    scene.run("cp", "-al", into, scene.live / "links")
    scene.want(
        (scene.live / "links/capable").stat().st_ino == (into / "capable").stat().st_ino
        or os.geteuid() != 0,
        "cp -l made a copy",
    )
    scene.keep(scene.live)


def cpio(scene: Scene) -> None:
    """Out and in (it carries names, owners, modes, times in seconds and hard links), and pass-through."""
    root = source(scene)
    names = b"".join(name + b"\0" for name in walked(root))
    packed = scene.live / "tree.cpio"
    scene.feed(names, "cpio", "-0", "-o", "-H", "newc", "-F", packed, cwd=root)
    plain, copy = scene.local / "plain", scene.live / "copy"
    for target in (plain, copy):
        target.mkdir()
        scene.run("cpio", "-idmu", "--sparse", "--no-absolute-filenames", "-F", packed, cwd=target)
        fix_links(target)
        fix_folders(target, root)
    scene.same(notes(plain), copy)
    passed = scene.live / "passed"
    passed.mkdir()
    scene.feed(names, "cpio", "-0", "-pdm", "--sparse", passed, cwd=root)
    scene.same(notes(plain), passed, "mtime_ns")
    scene.keep(scene.live)


def fix_links(root: Path) -> None:
    """Give symbolic links a time; some programs set none."""
    for name in ("link to folder", "link to nothing"):
        os.utime(root / name, (0, 0), follow_symlinks=False)


def fix_folders(root: Path, source: Path) -> None:
    """Give folders the time they had where cpio has left that of their making: it does so with some, on ext4 too."""
    for folder, _, _ in os.walk(root):
        wanted = os.stat(source / os.path.relpath(folder, root)).st_mtime_ns
        if os.stat(folder).st_mtime_ns // 10**9 != wanted // 10**9:
            os.utime(folder, ns=(wanted, wanted))


def walked(root: Path) -> list[bytes]:
    """Names for cpio, members before their directories."""
    top = os.fsencode(root)
    found = []
    for folder, folders, files in os.walk(top, topdown=False):
        found += [os.path.relpath(os.path.join(folder, name), top) for name in [*files, *folders]]
    return found


def zipped(scene: Scene) -> None:
    """zip -r, update, test, unzip on the mount."""
    root = source(scene, plain=True)
    packed = scene.live / "tree.zip"
    scene.run("zip", "-qry", packed, ".", cwd=root)
    change_tree(root, scene.random("day"))
    shutil.copytree(root, scene.live / "tree", symlinks=True)
    scene.run("zip", "-qryFS", packed, ".", cwd=root)
    scene.run("zip", "-qT", packed)
    plain, copy = scene.local / "plain", scene.live / "copy"
    for target in (plain, copy):
        scene.run("unzip", "-q", packed, "-d", target)
        fix_links(target)
    scene.same(notes(plain), copy)
    scene.run("zip", "-qry", scene.local / "again.zip", ".", cwd=copy)
    scene.run("unzip", "-q", scene.local / "again.zip", "-d", scene.local / "back")
    scene.same(notes(plain), scene.local / "back", "mtime_ns")
    scene.keep(scene.live)


def inherited(scene: Scene) -> None:
    """Programs that know nothing of access lists, in a directory that hands them down."""
    root = source(scene, plain=True)
    plain = scene.local / "plain"
    for folder in (plain, scene.live):
        folder.mkdir(exist_ok=True)
        grant(folder, "-m", "d:u:1234:rwx,d:g:77:rx,d:o::-")
        scene.run("cp", "-r", "--sparse=always", "--preserve=timestamps", root, folder / "copy")
        scene.run("tar", "-C", root, "-cf", scene.local / "t.tar", ".")
        (folder / "unpacked").mkdir(0o750)
        scene.run(
            "tar", "-C", folder / "unpacked", "--no-same-permissions", "-xf", scene.local / "t.tar"
        )
        scene.run(
            "sh", "-c", "umask 077; mkdir -p a/b; echo x > a/b/c; mkfifo -m 660 p", cwd=folder
        )
    scene.same(notes(plain), scene.live, "mtime_ns", "allocated")
    scene.keep(scene.live)


CASES = (
    Case("rsync-inplace", rsync_inplace, ("rsync", "setfacl")),
    Case("rsync-sparse", rsync_sparse, ("rsync", "setfacl")),
    Case("rsync-link-dest", rsync_linked, ("rsync", "setfacl")),
    Case("tar", tar, ("tar", "setfacl")),
    Case("cp", cp, ("cp", "setfacl")),
    Case("acl-inherited", inherited, ("cp", "tar", "setfacl")),
    Case("cpio", cpio, ("cpio", "setfacl")),
    Case("zip", zipped, ("zip", "unzip")),
)
