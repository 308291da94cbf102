"""Recovery points: their list, making one outside a session, what is kept beside one, deleting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace

import fsmount
from daemon.contract import Attachment, Durability, Page, PointDetail, PointQuery
from daemon.service import cursors
from daemon.service.core import bounded
from daemon.service.quiet import Quiet
from daemon.state import Note
from engine import PlannedPoint, PointInfo
from engine.errors import Busy, InvalidRequest, NotFound

OPEN_FILES_MAX = 100  # names of files open for writing that are kept with a point
UNNAMED = "(a file)"


@dataclass(frozen=True)
class Still:
    """A mount that stands still: what is open for writing in it, and how it goes on."""

    thaw: Callable[[], None] = lambda: None
    open_files: list[str] = field(default_factory=list)
    more: bool = False


class Points(Quiet):
    """The part of ``Backend`` about recovery points."""

    def points(self, query: PointQuery) -> Page[PointInfo]:
        """Points that agree with a query, oldest first. Raises NotFound for a mount that does not exist."""
        limit = bounded(query.limit)
        after = tuple(cursors.decode("points", query.cursor, int, str, int))
        found = [
            point
            for point in self.store.points(query.mount or None)
            if (not query.label or point.label == query.label)
            and (not query.since_ns or point.time_ns >= query.since_ns)
            and (not query.until_ns or point.time_ns <= query.until_ns)
            and (point.time_ns, point.mount, point.seq) > after
        ]
        page = found[:limit]
        if len(found) <= limit:
            return Page(page)
        last = page[-1]
        return Page(page, cursors.encode("points", last.time_ns, last.mount, last.seq))

    def point(self, reference: str) -> PointDetail:
        """A point by id, unique prefix, or MOUNT@latest. Raises NotFound, InvalidRequest."""
        return self.detail(self.store.point(reference))

    def detail(self, point: PointInfo) -> PointDetail:
        """A point with what is kept beside it."""
        note = self.state.notes.get(point.id)
        attachments = self.state.attachments.of(point=point.id)
        copies = {name: one.state for name, one in self.copies_of(point.id).items()}
        return PointDetail(
            point,
            note.session,
            note.consistency,
            note.open_files,
            attachments,
            note.kept,
            dict(copies),
        )

    def snapshot(
        self, mount: str, *, label: str = "", durability: Durability = "local", once: str = ""
    ) -> PointDetail:
        """A point of a mount as it is, outside a session or beside one. Raises Busy by the policy for open files; where
        its copies are waited for, see ``point_made``."""
        self.check_durability(mount, durability)
        planned = self.store.plan_point()
        with self.locked(mount):
            self.store.mount(mount)
            self.refuse_deleting(mount)
            made = self._made_before(once, mount, label) or self._made(mount, label, planned, once)
        self.point_made(made.id, durability)
        return self.detail(made)

    def _made(self, mount: str, label: str, planned: PlannedPoint, once: str) -> PointInfo:
        with self.between("commit", mount, point=planned.id) as quiet:
            beside = self.state.sessions.open_of(mount) is not None
            with self.writing() as store, self.still(mount) as still:
                note = self.note_of(mount, planned, still)
                if beside:
                    note = replace(note, consistency="crash-consistent")
                if once:
                    makes = {"point": planned.id, "note": note.to_json()}
                    self.state.once.put(once, [mount, label], makes)
                made = store.snapshot(
                    mount, label, planned=planned, thaw=still.thaw, lock_s=self.policy(mount).lock_for
                )  # fmt: skip
            quiet.done = made.id
            self.state.notes.put(note)
        return made

    def _made_before(self, once: str, mount: str, label: str) -> PointInfo | None:
        """With the mount's lock, so whoever asked before has an answer or has died: the point that was made then."""
        known = self.state.once.get(once, [mount, label]) if once else None
        if known is None:
            return None
        try:
            made = self.store.point(known["point"])
        except NotFound:
            return None
        if not self.state.notes.known(made.id):
            self.state.notes.put(Note.from_json(made.id, known["note"]))
        return made

    @contextmanager
    def still(self, mount: str) -> Iterator[Still]:
        """The mount stands still until ``thaw`` or the end of the block; at once when nobody serves it."""
        try:
            client = fsmount.client(self.path, mount)
        except NotFound:
            yield Still()
            return
        with client:
            client.request("freeze")
            names, more = self._open_files(mount)

            def thaw() -> None:
                client.request("thaw")

            yield Still(thaw, names[:OPEN_FILES_MAX], more or len(names) > OPEN_FILES_MAX)

    def _open_files(self, mount: str) -> tuple[list[str], bool]:
        """Paths of files open for writing, and whether there are more."""
        try:
            found = fsmount.request(self.path, mount, "writers")
            return [str(one) for one in found["writers"]], bool(found["more"])
        except InvalidRequest:  # a worker that was started before an upgrade only counts them
            count = fsmount.request(self.path, mount, "status")["open_writers"]
            return [UNNAMED] * bool(count), count > 1

    def note_of(self, mount: str, planned: PlannedPoint, still: Still, session: str = "") -> Note:
        """The note of a point that is about to be made. Raises Busy when the policy refuses open files."""
        if not still.open_files:
            return Note(planned.id, session, "consistent")
        if self.policy(mount).open_files == "refuse":
            more = " and others" if still.more else ""
            raise Busy(
                f"mount {mount!r}", expected="no file open for writing", found=", ".join(still.open_files) + more,
                do="close them and try again",
            )  # fmt: skip
        return Note(planned.id, session, "crash-consistent", still.open_files)

    def refuse_deleting(self, mount: str) -> None:
        """Raises Busy when the mount is being deleted."""
        if self.state.wanted.get(mount).deleting:
            raise self._being_deleted(mount)

    def keep(self, reference: str, *, kept: bool = True) -> PointDetail:
        """Have retention leave a point alone, or no longer; who deletes it by name still does. Raises NotFound."""
        point = self.store.point(reference)
        with self.locked(point.mount):  # retention looks and deletes with it
            point = self.store.point(point.id)
            self.state.notes.keep(point.id, kept=kept)
        return self.detail(point)

    def lock(self, reference: str, *, until_ns: int = 0, for_s: float = 0) -> PointDetail:
        """Have nobody delete a point before a time, or for so long from now on: neither by name, nor with its mount,
        nor by retention. It is only made longer.

        Raises NotFound, InvalidRequest, Held for less than there is, Busy while it is being deleted.
        """
        with self.writing() as store:
            point = store.lock_point(self.store.point(reference).id, until_ns=until_ns, for_s=for_s)
        self.ports.uploads.wake()
        return self.detail(point)

    def remove_points(self, references: list[str]) -> list[PointInfo]:
        """Delete points, all of them or none. Raises NotFound, Held while one is locked, Busy while one is open or
        shown in a mount."""
        if not references:
            raise InvalidRequest("points to delete", expected="one or more", found="none")
        ids = [self.store.point(one).id for one in references]
        for one in self.state.jobs.restores():
            if one.point in ids and not one.target:
                raise Busy(f"point {one.point}", expected="no restore that shows it", found=f"job {one.job}",
                           do="delete that restore first")  # fmt: skip
        with self.writing() as store:
            gone = store.remove_points(ids)
        self.state.notes.remove(point.id for point in gone)
        return gone

    def forecast(self, references: list[str]) -> dict[str, int]:
        """What deleting these points would free. Raises NotFound."""
        if not references:
            raise InvalidRequest("points to delete", expected="one or more", found="none")
        told = asdict(self.store.would_free(references))
        return {**told, "points": len(told["points"])}

    def attachment(self, attachment_id: int) -> tuple[Attachment, Iterator[bytes]]:
        """A log or a hook's output, and its content. Raises NotFound."""
        return self.state.attachments.get(attachment_id), self.state.attachments.content(attachment_id)  # fmt: skip

    def database_files(self, reference: str) -> dict[str, list[str]]:
        """Which files of a point belong to which database, as the logs say that were sent with it."""
        return self.state.attachments.files(self.store.point(reference).id)
