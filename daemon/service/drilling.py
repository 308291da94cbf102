"""What a job of kind ``drill`` does: a point is restored into a scratch directory, compared, and given to the mount's
hook; what that took is the measured recovery time."""

from __future__ import annotations

import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from daemon.contract import JobInfo
from daemon.service import hooks, scratch
from daemon.service.copies import SETTINGS
from daemon.service.scratch import Scratch
from daemon.state import State
from engine import PointView, Store
from engine.errors import Corrupt, StoreFull
from engine.nodes import Entry
from engine.progress import Progress, Report
from engine.restore import RestoreReport

if TYPE_CHECKING:  # what reads configurations takes longer to import than most commands run
    from daemon.config import Mount

LOCAL = "local"
TOLD_MAX = 5  # differences that are named
ROOM = 1.1  # times a point's bytes that must be free: others write meanwhile
_EVENT = "verify"
_PLAIN = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)


class DrillFailed(Corrupt):
    """What was restored is not what it should be. ``result``: what one that went well would have had."""

    def __init__(self, point: str, expected: str, found: str, result: dict[str, Any]) -> None:
        super().__init__(f"drill of point {point}", expected=expected, found=found,
                         do="see what it printed ('holdfast drills'), and try another point")  # fmt: skip
        self.result = result


def drill(
    store: Store, job: JobInfo, report: Report, steady: Callable[[], float] = time.monotonic
) -> dict[str, Any]:
    """Run a drill; what is told of it. Raises DrillFailed, and what restoring raises."""
    point, keep = str(job.options["point"]), bool(job.options["keep"])
    with (
        State.open(store.path) as state,
        scratch.made(str(job.options["place"]), job.id, store_path=store.path) as here,
        Store.open(store.path) as own,
    ):
        pinned = own.view(point)  # nobody deletes it meanwhile, also when it is read elsewhere
        _check_room(own, pinned, own.point(point).logical_bytes, here.path)
        try:
            result = _restored(own, job, here, report, steady)
            _verify(state, job, here, result, report, steady)
        except DrillFailed as error:
            if keep:
                error.result["path"] = here.keep()
            raise
        if keep:
            result["path"] = here.keep()
    return result


def _restored(
    store: Store, job: JobInfo, here: Scratch, report: Report, steady: Callable[[], float]
) -> dict[str, Any]:
    """The point in the scratch directory, compared; what is told of it. Raises DrillFailed."""
    point = str(job.options["point"])
    begun = steady()
    with _source(store, str(job.options["source"]), here, report) as source:
        done = source.restore(point, b"", os.fsencode(here.tree), report=report)
        result = {
            "files": done.files, "bytes": done.bytes, "restore_s": round(steady() - begun, 3),
            "skipped": len(done.skipped), "disowned": done.disowned, "verify_s": 0.0, "hook": False,
            "output": 0, "path": "",
        }  # fmt: skip
        _compare(point, source.view(point), here.tree, done, report, result)
    return result


@contextmanager
def _source(store: Store, name: str, here: Scratch, report: Report) -> Iterator[Store]:
    """The store to restore from: this one, or one made of what is at a location alone."""
    if name == LOCAL:
        yield store
        return
    folder = os.path.join(here.path, "borrowed")
    os.mkdir(folder, 0o700)
    with store.copies.borrow(name, scratch=folder, report=report) as borrowed:
        yield borrowed
    os.rmdir(folder)


# --- room ---------------------------------------------------------------------------------------------------


def _check_room(store: Store, view: PointView, size: int, path: str) -> None:
    """Raises StoreFull where the point may not fit. What is all holes is counted before it is refused."""
    if os.stat(path).st_dev == os.stat(store.path).st_dev:
        left = store.space_left()  # writers' reserve stays free
    else:
        space = os.statvfs(path)
        left = space.f_bavail * space.f_frsize
    if size * ROOM <= left:
        return
    needed = int(sum(entry.allocated for _, entry in _entries(view)) * ROOM)
    if needed > left:
        raise StoreFull(f"scratch place {os.path.dirname(path)}", expected=f"{needed} bytes free", found=str(left),
                        do="free space there, or name another place")  # fmt: skip


def _entries(view: PointView) -> Iterator[tuple[bytes, Entry]]:
    """(path, entry) of everything below the root of a point."""
    inside = [(b"", view.root_entry)]
    while inside:
        above, folder = inside.pop()
        for entry in view.scan(folder):
            path = above + b"/" + entry.name if above else entry.name
            yield path, entry
            if stat.S_ISDIR(entry.mode):
                inside.append((path, entry))


# --- what was restored --------------------------------------------------------------------------------------


def _compare(
    point: str, view: PointView, tree: str, done: RestoreReport, report: Report, result: dict[str, Any]
) -> None:  # fmt: skip
    """Raises DrillFailed unless everything of the point is there. Content was verified when it was read."""
    wrong = [f"{_shown(one.path)}: {one.text}" for one in done.damaged]
    skipped = {one.path for one in done.skipped}
    for number, (path, entry) in enumerate(() if wrong else _entries(view), 1):
        if not number % 1000:
            report(Progress("compare", number, None, "entries"))
        if path in skipped and stat.S_IFMT(entry.mode) not in _PLAIN:
            continue  # special files are root's to make
        if why := _differs(os.path.join(os.fsencode(tree), path), entry):
            wrong.append(f"{_shown(path)}: {why}")
    if wrong:
        more = f" and {len(wrong) - TOLD_MAX} more" if len(wrong) > TOLD_MAX else ""
        raise DrillFailed(
            point, "every entry as it was", "; ".join(wrong[:TOLD_MAX]) + more, result
        )


def _differs(path: bytes, entry: Entry) -> str:
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "left out"
    if stat.S_IFMT(found.st_mode) != stat.S_IFMT(entry.mode):
        return "another type"
    if stat.S_ISREG(entry.mode) and found.st_size != entry.size:
        return f"{found.st_size} bytes, not {entry.size}"
    if stat.S_ISLNK(entry.mode) and os.readlink(path) != entry.target:
        return "another target"
    return ""


def _shown(path: bytes) -> str:
    return "".join(c if c.isprintable() else "?" for c in path.decode("utf-8", "replace"))[:200]


# --- the hook -----------------------------------------------------------------------------------------------


def _verify(
    state: State, job: JobInfo, here: Scratch, result: dict[str, Any], report: Report, steady: Callable[[], float]
) -> None:  # fmt: skip
    """Run the mount's hook; nothing it started outlives it. Raises DrillFailed when it fails."""
    hook = _settings(state, job.mount).hooks.get("verify")
    if hook is None:
        return
    point, token = str(job.options["point"]), secrets.token_hex(10)
    values = {
        "MOUNT": job.mount, "POINT": point, "SOURCE": str(job.options["source"]), "PATH": here.tree,
        "SCRATCH": here.work, hooks.TOKEN: token,
    }  # fmt: skip
    report(Progress(_EVENT, 0, None, "s"))
    here.runs(token)
    begun = steady()
    try:
        ran = hooks.run("verify", hook, values)
    finally:
        hooks.end_left(token)
    result |= {"hook": True, "verify_s": round(steady() - begun, 3)}
    if ran.output:
        kept = state.attachments.add(
            "hook", _EVENT, "", [ran.output], most=hooks.OUTPUT_MAX, point=point
        )
        result["output"] = kept.id
    if ran.why:
        raise DrillFailed(point, "its verify hook to agree", ran.told, result)


def _settings(state: State, mount: str) -> Mount:
    """What the configuration said of a mount when the drill was started: jobs have none."""
    from daemon.config import Mount

    return Mount.model_validate(json.loads(state.marks.get(SETTINGS + mount) or "{}"))
