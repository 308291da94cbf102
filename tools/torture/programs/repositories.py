"""git on the mount: commits, clone, gc, while recovery points are made."""

from __future__ import annotations

from pathlib import Path

from tools.torture.programs.cases import Case, Scene

COMMITS = 200
# Everything a commit needs is synced before its name is: then a recovery point of any moment is a whole repository.
STRICT = ("-c", "core.fsync=all", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "gc.auto=0")  # fmt: skip


def commit(scene: Scene, repository: Path, first: int, count: int) -> str:
    """Some commits; the id of the last."""
    rng = scene.random("commits", first)
    for number in range(first, first + count):
        for _ in range(3):
            path = repository / f"d{rng.randrange(5)}" / f"f{rng.randrange(20)}"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(f"line {rng.randrange(50)}\n" for _ in range(100)))
        scene.run("git", *STRICT, "add", "-A", cwd=repository)
        scene.run("git", *STRICT, "commit", "-qm", f"change {number}", cwd=repository)
    return scene.run("git", "rev-parse", "HEAD", cwd=repository).strip()


def whole(scene: Scene, repository: Path, commit_id: str) -> None:
    """The repository is sound and has this commit; its working tree can be had."""
    safe = ("git", "-c", "safe.directory=*")
    said = scene.run(*safe, "fsck", "--full", "--strict", cwd=repository)
    bad = [line for line in said.splitlines() if not line.startswith(("dangling", "notice"))]
    scene.want(not bad, f"git fsck in {repository}: {bad}")
    scene.run(*safe, "cat-file", "-e", f"{commit_id}^{{commit}}", cwd=repository)
    scene.run(*safe, "merge-base", "--is-ancestor", commit_id, "HEAD", cwd=repository)


def git(scene: Scene) -> None:
    """Work, clone, collect; recovery points are made in the middle of commits and of the collection."""
    work = scene.live / "work"
    half = max(6, scene.rounds(COMMITS) // 2)
    scene.run("git", "init", "-q", work)
    last = commit(scene, work, 0, half)
    found = scene.meanwhile(lambda: commit(scene, work, half, half)) / "work"
    whole(scene, found, last)
    last = scene.run("git", "rev-parse", "HEAD", cwd=work).strip()
    scene.run("git", "clone", "-q", work, scene.live / "clone")  # objects as hard links
    scene.run("git", "clone", "-q", "--no-local", work, scene.live / "packed")
    collect = ("git", *STRICT, "gc", "-q", "--aggressive", "--prune=now")
    found = scene.meanwhile(lambda: scene.run(*collect, cwd=work)) / "work"
    whole(scene, found, last)
    for name in ("work", "clone", "packed"):
        whole(scene, scene.live / name, last)
    status = scene.run("git", "status", "--porcelain", cwd=work)
    scene.want(not status, f"the working tree differs from its commit\n{status}")
    scene.run("git", "pull", "-q", cwd=scene.live / "clone")
    for name in ("work", "clone", "packed"):
        scene.keep_so(scene.live / name, lambda found: whole(scene, found, last))


CASES = (Case("git", git, ("git",)),)
