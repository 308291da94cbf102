"""What the service kept with points comes back into its state: of a store that was adopted, or whose state was lost.

Of which points it must come back follows from what there is (a point that a location has something of, and of which
nothing is known here), so whoever is killed is followed by the next.  Until it has come, retention leaves the point
alone: somebody may have marked it to be kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from daemon.contract import SessionInfo
from daemon.service.core import alone
from daemon.service.extras import Coming, Kept
from daemon.service.logs import plain_name
from daemon.state import Note, State
from engine import Progress, Store
from engine.errors import Corrupt, FormatTooNew, HoldfastError, NotFound
from engine.progress import Report, silent

log = logging.getLogger("holdfast.daemon")

LOCK = ".returning"  # no mount has such a name


@dataclass
class Returned:
    """What came back. ``lost``: points whose own could not be read, each with why; ``waiting``: points whose own is
    still at the location, ``why`` it is."""

    points: int = 0
    attachments: int = 0
    kept: int = 0
    lost: list[str] = field(default_factory=list)
    waiting: int = 0
    why: str = ""


def missing(store: Store, state: State) -> list[str]:
    """Points of which a location has what the state does not."""
    return [point for point in store.copies.with_extras() if not state.notes.known(point)]


def may_go(store: Store, state: State, point: str) -> bool:
    """Whether it is known if a point is kept: by what came back, or because somebody has said so here."""
    return state.notes.has(point) or not store.copies.has_extras(point)


def give_back(
    store: Store, state: State, *, report: Report = silent, stop: Callable[[], bool] = lambda: False
) -> Returned:  # fmt: skip
    """Have all come back that can be had now. Raises Busy while another process is at it, and what the state raises."""
    found = Returned()
    if not missing(store, state):
        return found
    with alone(store.path, LOCK, "what was kept with points", 0):
        wanted = missing(store, state)
        for done, point in enumerate(
            reversed(wanted)
        ):  # the newest say what was said last of the others
            report(Progress("give back", done, len(wanted), "points"))
            if stop() or not _one(store, state, point, found):
                found.waiting = len(wanted) - done
                break
    return found


def _one(store: Store, state: State, point: str, found: Returned) -> bool:
    """False when no other point's can be had either."""
    try:
        mount = store.point(point).mount
    except NotFound:
        return True  # deleted meanwhile
    try:
        kept = _read(store, state, point, mount)
    except Corrupt as error:  # looked at again the next time: a location may be mended
        text = f"what was kept with it cannot be read: {error}"
        if not state.notes.has(point):  # as long as nobody says that it is not kept, it is
            state.notes.keep(point, kept=True)
            text += f"; it is kept until 'holdfast keep {point} --no'"
        store.incidents.note("corrupt", f"point {point}", text)
        found.lost.append(f"point {point}: {text}")
        return True
    except FormatTooNew as error:
        found.why = str(error)
        store.incidents.note("corrupt", f"point {point}", f"what was kept with it: {error}")
        return False
    except HoldfastError as error:
        found.why = str(error)
        return False
    found.points += 1
    found.attachments += len(kept.attachments)
    found.kept += state.notes.get(point).kept
    return True


def _read(store: Store, state: State, point: str, mount: str) -> Kept:
    coming = Coming(store.copies.extras(point))
    kept = coming.kept
    for other in kept.others:
        with suppress(NotFound):
            if store.point(other).mount == mount and not state.notes.has(other):
                state.notes.keep(other, kept=True)
    state.returns.begin(point)
    texts = [
        state.returns.text(point, one.kind, plain_name(one.name), one.time_ns, one.files, pieces)
        for one, pieces in coming.texts()
    ]
    note = Note(point, "", kept.consistency, kept.open_files, kept.kept)
    session = None
    if kept.session is not None:
        one = kept.session
        note = Note(point, one.id, kept.consistency, kept.open_files, kept.kept)
        if one.ended_ns:  # else its row was forgotten before the point was sent
            session = SessionInfo(
                one.id, mount, "committed", one.begun_ns, one.ended_ns, holder=one.holder, label=one.label,
                point=point, ended_ns=one.ended_ns,
            )  # fmt: skip
    state.returns.complete(note, session, texts)
    return kept
