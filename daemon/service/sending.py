"""What a job of kind ``upload`` does: the points that wait go to one location, with what the service keeps of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from daemon.service import extras
from daemon.service.copies import ADOPTED, SETTINGS
from daemon.service.core import LOCK_WAIT, locked
from daemon.service.extras import Kept, KeptSession, KeptText
from daemon.state import State
from engine import Store, limits
from engine.errors import Corrupt, NotFound
from engine.progress import Report

log = logging.getLogger("holdfast.daemon")

OTHERS_MAX = 100_000  # points that are kept, the newest
WAIT_S = LOCK_WAIT  # s for the mount of a point that was made just now
CONFIGURATION_MAX = limits.JOURNAL_FREE_MAX // 2  # characters of JSON, ASCII


def upload(
    store: Store, location: str, report: Report, stop: Callable[[], bool]
) -> dict[str, int | str]:
    """Send every point that waits for this location; what that took. Raises what ``Store.upload`` raises."""
    with State.open(store.path) as state:

        def of_point(point: str) -> list[bytes]:
            return _extras(store, state, point)

        def settings(mount: str) -> Mapping[str, Any]:
            return settings_of(store, state, mount)

        sent = store.copies.send(
            location, extras=of_point, settings=settings, report=report, stop=stop
        )  # fmt: skip
    result: dict[str, int | str] = {
        "location": location, "points": len(sent), "packs": sum(one.packs for one in sent),
        "chunks": sum(one.chunks for one in sent), "bytes": sum(one.bytes for one in sent),
        "read_back": sum(one.read_back for one in sent), "requests": sum(one.requests for one in sent),
    }  # fmt: skip
    if any(one.name == location and one.local == "drop" for one in store.copies.locations()):
        result["dropped"] = store.copies.drop_local(report=report).bytes
    return result


def _extras(store: Store, state: State, point: str) -> list[bytes]:
    """What is kept with a point. Raises Busy while it is not all written down."""
    try:
        mount = store.point(point).mount
    except NotFound:
        return []  # deleted meanwhile: the engine finds out
    with locked(store.path, mount, WAIT_S):
        pass  # who makes a point holds its mount until all that is kept with it is written down
    others = _others(store, state, point, mount)
    try:
        return extras.encode(replace(kept(state, point), others=others))
    except Corrupt as error:  # what is kept beside it must not keep the point itself from its copy
        store.incidents.note("corrupt", f"point {point}", f"its copy goes without logs: {error}")
        return extras.encode(replace(kept(state, point, texts=False), others=others))


def _others(store: Store, state: State, point: str, mount: str) -> list[str]:
    """Points of its mount that are kept: those that were sent before may have been marked since."""
    found = []
    for one in sorted(state.notes.kept() - {point})[-OTHERS_MAX:]:
        with suppress(NotFound):
            if store.point(one).mount == mount:
                found.append(one)
    return found


def kept(state: State, point: str, *, texts: bool = True) -> Kept:
    """What the state has of a point; without its attachments unless ``texts``."""
    note = state.notes.get(point)
    found = None
    if note.session:
        try:
            one = state.sessions.get(note.session)
            found = KeptSession(one.id, one.holder, one.label, one.begun_ns, one.ended_ns)
        except NotFound:  # it was so long ago that its row was forgotten
            found = KeptSession(note.session, "", "", 0, 0)
    attachments = [
        KeptText(one.kind, one.name, one.time_ns, files, b"".join(state.attachments.content(one.id)))
        for one, files in (state.attachments.with_files(point) if texts else [])
    ]  # fmt: skip
    return Kept(note.consistency, note.open_files, note.kept, found, attachments)


def settings_of(store: Store, state: State, mount: str) -> dict[str, Any]:
    """Settings of a mount: those of the engine, and what the configuration said when uploads began last."""
    try:
        found = store.mount(mount)
    except NotFound:
        return {}
    text = state.marks.get(ADOPTED + mount) or state.marks.get(SETTINGS + mount)
    if len(text) > CONFIGURATION_MAX:
        log.warning(
            "mount %s: what the configuration says of it is too long to be kept with its points",
            mount,
        )
        text = ""
    return {
        "chunking": found.chunking, "quota": found.quota, "max_files": found.files,
        "configuration": json.loads(text) if text else {},
    }  # fmt: skip
