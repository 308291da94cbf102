"""Clients of a daemon that dies: what each asked for, what it was told, and how it goes on with what it was not told.

One client for each mount. While things die it does one thing after the other, up to the first that has no answer.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from daemon.contract import SessionInfo
from tools.torture.history import Picture, Seen
from tools.torture.kill.asking import LostError, Native, Phoenix, RefusedError
from tools.torture.kill.running import Running
from tools.torture.kill.served import Broken, Served, split
from tools.torture.kill.writers import Asked, Writer

ACTS = ("renew", "log", "log", "commit", "commit", "abandon", "snapshot", "restore", "show")
IN_SESSION = ("renew", "log", "commit", "abandon")
NOT_BEGUN = 4295622659
BUSY = 409
REASONS = 200  # characters of a log, at least


@dataclass
class Taken:
    """A recovery point that was asked for: of a session, or a snapshot. ``point``: its id, once it was told."""

    mount: str
    label: str = ""
    point: str = ""
    asked: list[tuple[Writer, Asked]] = field(default_factory=list)
    crashed: bool = False
    pictures: dict[str, Picture] = field(default_factory=dict)

    def ask(self, served: Served) -> None:
        """It is about to be asked for: what is there now is in it, unless the worker dies."""
        if not self.asked and not self.pictures:
            self.crashed = served.died
            self.asked = [(writer, writer.ask()) for writer in served.writers]

    def ended(self, served: Served) -> None:
        """What is begun from now on is not in it."""
        for writer, asked in self.asked:
            crashed = self.crashed or served.died
            self.pictures[writer.name] = writer.answered(asked, crashed=crashed)
        self.asked = []

    def misfit(self, seen: Mapping[bytes, Seen]) -> str:
        """Why it cannot hold this; empty when it can."""
        for name, picture in self.pictures.items():
            wrong = picture.misfit(split(dict(seen), name))
            if wrong:
                return f"{name}: {wrong}"
        return ""


@dataclass
class Session(Taken):
    """``state``: what it must be in; with a "?" it was asked for and not answered."""

    id: str = ""
    native: bool = True
    state: str = "open"
    key: str = ""
    logs: dict[str, tuple[int, bytes]] = field(
        default_factory=dict
    )  # name -> (its number, 0 for unknown; content)


@dataclass
class Book:
    """All that was asked of one store."""

    sessions: list[Session] = field(default_factory=list)
    shots: list[Taken] = field(default_factory=list)
    jobs: dict[int, str] = field(default_factory=dict)  # restore -> what was asked
    points: dict[str, list[str]] = field(
        default_factory=dict
    )  # mount -> those that can be restored


class Client:
    """See the module. ``told``: called right after each answer with what was asked for."""

    def __init__(self, running: Running, served: Served, book: Book) -> None:
        self.served = served
        self.mount = served.name
        self.session: Session | None = None
        self.error: BaseException | None = None
        self._running = running
        self._book = book
        self._number = 0
        self._native = Native(running.socket)
        self._phoenix = Phoenix(running.address, self.mount)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._rng = random.Random(0)
        self.told: Callable[[str], None] = lambda act: None

    def close(self) -> None:
        """Hang up."""
        self._native.close()
        self._phoenix.close()

    def _word(self) -> str:
        self._number += 1
        return f"{self.mount}-{self._number}"

    # --- while things die -----------------------------------------------------------------------------------

    def start(self, rng: random.Random, first: str) -> None:
        """Ask for one thing after the other, for this one first."""
        self._rng, self.error = rng, None
        self._stop.clear()
        self._thread = threading.Thread(target=self._work, args=(first,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """After what it is asking for. Raises Broken for an answer that it should not have got."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self.error is not None:
            raise self.error

    def _work(self, first: str) -> None:
        act = first or self._rng.choice(ACTS)
        try:
            while not self._stop.is_set():
                for each in self._steps(act):
                    getattr(self, f"_{each}")()
                    self.told(each)
                act = self._rng.choice(ACTS)
                self._stop.wait(self._rng.uniform(0, 0.05))
        except LostError:
            return
        except RefusedError as error:
            if not self.served.died:
                self.error = Broken(f"{self.mount}: {act} was refused, though all lives: {error}")
        except BaseException as error:  # noqa: BLE001 - raised where this thread is waited for
            self.error = error

    def _steps(self, act: str) -> list[str]:
        if act == "begin" and self.session is not None:
            return ["abandon", "begin"]
        if act in IN_SESSION and self.session is None:
            return ["begin", act]
        return [act]

    def _begin(self) -> None:
        session = self.session = Session(self.mount, state="open?", native=self._rng.random() < 0.7)
        self._book.sessions.append(session)
        if session.native:
            session.label = self._word()
            session.id = self._begun(session)
        else:
            self._phoenix.begin()
        session.state = "open"

    def _begun(self, session: Session) -> str:
        """Begin it, perhaps again; its id."""
        if not session.native:
            self._phoenix.begin()
            return self._native.open_session(self.mount)
        asked = {"holder": session.label, "label": session.label}
        path = f"/v1/mounts/{self.mount}/sessions"
        return str(self._native.post(path, asked, key=f"begin {session.label}")["id"])

    def _renew(self) -> None:
        session = self._open()
        if session.native:
            self._native.post(f"/v1/sessions/{session.id}/renew", {"lease_s": 3600})
        else:
            self._phoenix.begin()

    def _open(self) -> Session:
        assert self.session is not None
        return self.session

    def _log(self) -> None:
        session, name = self._open(), self._word()
        content = self._rng.randbytes(REASONS).hex().encode() * self._rng.choice((1, 1, 4000))
        number = 0
        if session.native:
            number = int(self._native.log(session.id, name, content)["id"])
        else:
            self._phoenix.log(name, content)
        session.logs[name] = number, content

    def _commit(self) -> None:
        session = self._open()
        session.state, session.key = "committed?", self._word()
        session.ask(self.served)
        point = self._committed(session)
        self._ended(session, "committed", point)

    def _committed(self, session: Session) -> str:
        if not session.native:
            return self._phoenix.commit()
        path = f"/v1/sessions/{session.id}/commit"
        found = self._native.post(path, {}, key=f"commit {session.key}")
        return str(found["detail"]["point"]["id"])

    def _ended(self, session: Session, state: str, point: str = "") -> None:
        session.ended(self.served)
        session.state, session.point = state, point
        self.session = None
        if point:
            self._book.points.setdefault(self.mount, []).append(point)

    def _abandon(self) -> None:
        session = self._open()
        if not session.id:
            session.id = self._native.open_session(self.mount)
        session.state = "abandoned?"
        self._native.post(f"/v1/sessions/{session.id}/abandon")
        self._ended(session, "abandoned")

    def _snapshot(self) -> None:
        shot = Taken(self.mount, self._word())
        self._book.shots.append(shot)
        shot.ask(self.served)
        path = f"/v1/mounts/{self.mount}/snapshots"
        found = self._native.post(path, {"label": shot.label}, key=f"snapshot {shot.label}")
        shot.point = str(found["point"]["id"])
        shot.ended(self.served)
        self._book.points.setdefault(self.mount, []).append(shot.point)

    def _restore(self) -> None:
        self._restored("out")

    def _show(self) -> None:
        self._restored("mount")

    def _restored(self, place: str) -> None:
        points = self._book.points.get(self.mount)
        if points:
            point = self._rng.choice(points)
            found = self._native.post(
                "/v1/restores", {"point": point, "place": place}, key=self._word()
            )
            self._book.jobs[int(found["id"])] = point

    # --- when all is there again ----------------------------------------------------------------------------

    def settle(self, there: list[SessionInfo]) -> None:
        """Ask again for what had no answer. ``there``: the mount's sessions, as the daemon tells. Raises Broken."""
        mine = [one for one in self._book.sessions if one.mount == self.mount]
        for ended in mine:
            if ended is not self.session and not ended.id:
                ended.id = next((one.id for one in there if one.point == ended.point), "")
        known = {one.id for one in mine}
        strange = [one for one in there if one.id not in known]
        session = self.session
        if session is not None and not session.id:
            self._adopt(session, strange[:1])
            strange = strange[1:]
        if strange:
            raise Broken(f"nobody began session {strange[0]}")
        if session is None or not session.state.endswith("?"):
            return
        state = next((one.state for one in there if one.id == session.id), "gone")
        wanted = session.state[:-1]
        if state not in ("open", wanted):
            raise Broken(f"session {session.id} is {state}, asked was that it be {wanted}")
        if wanted == "abandoned":
            self._native.post(f"/v1/sessions/{session.id}/abandon")
            self._ended(session, wanted)
        else:
            self._ended(session, wanted, self._again(session, done=state == wanted))

    def _adopt(self, session: Session, strange: list[SessionInfo]) -> None:
        """Which session it is of whose begin no id was told; one that was never begun is begun now. Raises Broken."""
        lost = session.state == "open?"
        if not strange and not lost:
            raise Broken(
                f"the session of {self.mount}, which is to be {session.state}, is not there"
            )
        if strange and session.native and strange[0].holder != session.label:
            raise Broken(f"nobody began session {strange[0]}")
        if lost and strange and strange[0].state == "abandoned":
            # Its worker died before it was told: nothing was begun, and that was said, or would have been.
            refused = Session(
                self.mount, id=strange[0].id, native=session.native, state="abandoned"
            )
            self._book.sessions.append(refused)
            strange = []
        now = strange[0].id if strange else ""
        if lost:
            session.state = "open"
            try:
                again = self._begun(session)
            except RefusedError as error:
                if error.code != BUSY or not now:
                    raise Broken(f"{self.mount}: begun again with its key: {error}") from None
                again = now
            if now and again != now:
                raise Broken(
                    f"{self.mount}: begun again with its key: session {again}, before {now}"
                )
            now = again
        session.id = now

    def _again(self, session: Session, *, done: bool) -> str:
        """The point of a commit whose answer was lost, by asking for it again, twice."""
        with self._running.remote() as api:
            before = api.session(session.id).point if done else ""
            for _ in range(2):
                try:
                    point = self._committed(session)
                except RefusedError as error:
                    if session.native or not done or error.code != NOT_BEGUN:
                        raise Broken(f"session {session.id} committed again: {error}") from None
                    point = api.session(session.id).point
                if done and point != before:
                    raise Broken(f"session {session.id} has point {before}, then {point}")
                before, done = point, True
        return before

    def finish(self) -> Session:
        """Commit what is open, or begin and commit: a mount can always be gone on with. Raises Broken."""
        try:
            if self.session is None:
                self._begin()
            session = self._open()
            if not session.id:
                session.id = self._native.open_session(self.mount)
            self._commit()
        except (RefusedError, LostError) as error:
            raise Broken(f"mount {self.mount} cannot be gone on with: {error}") from None
        return session
