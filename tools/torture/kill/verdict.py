"""What must be so whenever a daemon is there again: sessions, points, logs, restores, mounts, and nothing else."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

from daemon.client import Remote
from daemon.contract import JobInfo
from engine import Store
from engine.errors import NotFound
from engine.keys import Identity
from engine.store import PointInfo
from tools.torture.crash.engine_files import observe_point
from tools.torture.kill import leaks
from tools.torture.kill.book import Print, fingerprint
from tools.torture.kill.clients import Book, Client, Session, Taken
from tools.torture.kill.commands import LONGEST, mounts
from tools.torture.kill.running import Running
from tools.torture.kill.served import Broken
from tools.torture.rig import Job
from tools.torture.workload import observe

FAR = "far"  # the storage location
POINTS_MAX = 5  # of a mount; older ones are removed
SILENT = 10.0  # s that a job may be called running without a process
ENDS = ("done", "failed", "cancelled")
_CONNECTIONS = Path("/sys/fs/fuse/connections")
_LOOK = 0.02


class Verdict:
    """Of one store."""

    def __init__(self, job: Job, running: Running, book: Book, clients: list[Client]) -> None:
        self._job = job
        self._running = running
        self._book = book
        self._clients = clients
        self._prints: dict[str, Print] = {}
        self._gone: set[str] = set()
        self._judged: set[int] = set()  # jobs
        self._devices: set[str] = set()
        self._counted = 0  # sessions

    def judge(self, rng: random.Random, *, quiet: bool) -> None:
        """``quiet``: mounts are gone on with. Raises Broken."""
        for client in self._clients:
            client.served.let_go()
            client.served.compare()
        with self._running.remote() as api:
            for client in self._clients:
                client.settle([one for one in api.sessions() if one.mount == client.mount])
                for shot in self._book.shots:
                    if shot.mount == client.mount:
                        shot.ended(client.served)
            for client in self._clients:
                client.served.died = False
                if quiet or rng.random() < 0.3:
                    client.finish()
                    self._job.count("mounts gone on with")
            self._sessions(api)
            self._points(api)
            self._logs(api)
            self._jobs(api)
            self._remove(api)
        self._running.listen()
        self._left()

    # --- sessions -------------------------------------------------------------------------------------------

    def _sessions(self, api: Remote) -> None:
        there = {one.id: one for one in api.sessions()}
        known = {one.id: one for one in self._book.sessions if one.id}
        if set(there) != set(known):
            raise Broken(f"sessions more or less: {sorted(set(there) ^ set(known))}")
        for one in known.values():
            found = there[one.id]
            if found.state != one.state or found.point != one.point:
                raise Broken(f"{found} is to be {one.state}, with point {one.point!r}")
        points = [one.point for one in known.values() if one.point]
        if len(set(points)) != len(points):
            raise Broken(f"a point of two sessions: {sorted(points)}")
        self._job.count("sessions judged", len(there) - self._counted)
        self._counted = len(there)

    # --- points ---------------------------------------------------------------------------------------------

    def _points(self, api: Remote) -> None:
        with Store.open(str(self._running.store)) as store:
            there = store.points()
            ids = {point.id for point in there}
            wanted = {one.point for one in (*self._book.sessions, *self._book.shots) if one.point}
            lost = (wanted | self._prints.keys()) - self._gone - ids
            if lost:
                raise Broken(f"points {sorted(lost)} were acknowledged, and are not there")
            old = [point for point in there if point.id in self._prints][:1]
            for point in there:
                if point.id not in self._prints:
                    self._new(api, store, point)
                elif (
                    point in old
                    and fingerprint(observe_point(store.glance(point.id))) != self._prints[point.id]
                ):
                    raise Broken(f"point {point.id} is not what it was")

    def _new(self, api: Remote, store: Store, point: PointInfo) -> None:
        """It was asked for, once, and holds what it may."""
        taken = self._asked(point)
        seen = observe_point(store.glance(point.id))
        wrong = taken.misfit(seen)
        if wrong:
            raise Broken(f"point {point.id} of {point.mount}, {point.label!r}: {wrong}")
        detail = api.point(point.id)
        if isinstance(taken, Session):
            names = {one.name for one in detail.attachments}
            missing = taken.logs.keys() - names
            if detail.session != taken.id or missing:
                raise Broken(f"{detail} is to be of session {taken.id}; logs missing: {missing}")
        self._prints[point.id] = fingerprint(seen)
        self._job.count("points compared")

    def _asked(self, point: PointInfo) -> Taken:
        for one in self._book.sessions:
            if one.point == point.id:
                return one
        for shot in self._book.shots:
            if (
                shot.label == point.label
                and shot.mount == point.mount
                and shot.point in ("", point.id)
            ):
                if shot.point != point.id:
                    self._book.points.setdefault(point.mount, []).append(point.id)
                shot.point = point.id
                return shot
        raise Broken(
            f"nobody asked for point {point.id} of {point.mount}, {point.label!r}, or it is there twice"
        )

    def _remove(self, api: Remote) -> None:
        for points in self._book.points.values():
            while len(points) > POINTS_MAX:
                point = points.pop(0)
                api.remove_points([point])
                self._gone.add(point)
                self._job.count("points removed")

    def elsewhere(self, safe: Identity, *, all_of_them: bool) -> None:
        """A store made from the location alone has every point that was called verified, as it was; after the end.
        Raises Broken."""
        running, target = self._running, self._running.home / f"adopted-{all_of_them}"
        with Store.open(str(running.store)) as store:
            there = {point.id for point in store.points()}
            states = {one.point: one.state for one in store.copies.uploads(FAR)}
        verified = {point for point, state in states.items() if state == "verified"}
        if states.keys() != there or (all_of_them and verified != there):
            raise Broken(f"points {sorted(there)}, and how far their copies are: {states}")
        report = Store.adopt(str(target), running.place, safe)
        if report.left_out:
            raise Broken(f"adopting left out: {report.done}")
        with Store.open(str(target)) as store:
            found = {point.id for point in store.points()}
            if not verified <= found:
                raise Broken(
                    f"points {sorted(verified - found)} are verified, and not at the location"
                )
            for point in found & self._prints.keys():
                if fingerprint(observe_point(store.glance(point))) != self._prints[point]:
                    raise Broken(f"point {point} is another at the location")
        self._job.count("points adopted", len(found))
        shutil.rmtree(target)

    # --- logs -----------------------------------------------------------------------------------------------

    def _logs(self, api: Remote) -> None:
        """What was acknowledged is there, byte for byte."""
        for session in self._book.sessions:
            if session.point in self._gone and session.point:
                continue
            for name, (number, content) in session.logs.items():
                if not number:
                    continue
                try:
                    found = b"".join(api.attachment(number)[1])
                except NotFound as error:
                    raise Broken(
                        f"log {name} of session {session.id} was acknowledged: {error}"
                    ) from None
                if found != content:
                    raise Broken(f"log {name} of session {session.id} is not what was sent")
                self._job.count("logs compared")
            if session.state not in ("open", "open?"):
                session.logs = {}

    # --- restores -------------------------------------------------------------------------------------------

    def _jobs(self, api: Remote) -> None:
        """Every restore comes to an end, which is what it says."""
        ended = self._ended(api)
        missing = self._book.jobs.keys() - {one.id for one in ended}
        if missing:
            raise Broken(f"restores {sorted(missing)} were acknowledged, and are not there")
        for one in ended:
            if one.id not in self._judged:
                self._judged.add(one.id)
                self._restored(api, one)
                self._job.count(f"restores {one.state}")

    def _ended(self, api: Remote) -> list[JobInfo]:
        end = time.monotonic() + LONGEST
        silent = time.monotonic()
        while True:
            found = api.jobs(kind="restore", limit=1000).items
            left = [one for one in found if one.state not in ENDS]
            if not left:
                return found
            if self._running.those("daemon.job"):
                silent = time.monotonic()
            if time.monotonic() > min(end, silent + SILENT):
                raise Broken(f"a restore that has no process does not end: {left[0]}")
            time.sleep(_LOOK)

    def _restored(self, api: Remote, one: JobInfo) -> None:
        shown = one.options["place"] == "mount"
        home = self._running.home
        place = (home / "mnt" / one.mount / "restores" if shown else home / "out") / str(one.id)
        if one.state == "done":
            if fingerprint(observe(os.fsencode(place))) != self._prints[one.options["point"]]:
                raise Broken(f"restore {one.id} is not what point {one.options['point']} holds")
            api.delete_restore(one.mount, one.id)
        elif not one.error.get("message"):
            raise Broken(f"{one} failed without a reason")
        else:
            try:
                api.delete_restore(one.mount, one.id)
                raise Broken(f"{one} has failed, and can be used")
            except NotFound:
                pass
            if not shown:
                shutil.rmtree(place, ignore_errors=True)
        if os.path.lexists(place):
            raise Broken(f"restore {one.id}, {one.state}, is still at {place}")

    # --- nothing else ---------------------------------------------------------------------------------------

    def _left(self) -> None:
        """What is mounted and what runs is what is to be. Raises Broken."""
        running = self._running
        places = sorted(mounts(running.home))
        if places != sorted(str(one.where) for one in running.served):
            raise Broken(f"mounted are {places}")
        assert running.process is not None
        known = {running.process.pid, *running.those("daemon.mounter")}
        known |= {running.worker(one.name) for one in running.served}
        if len(running.those("daemon.mounter")) > bool(running.user):
            raise Broken(f"mounters: {running.those('daemon.mounter')}")
        left = leaks.others(running.home, known)
        if left:
            raise Broken(f"processes left: {left}")
        self._devices |= {str(os.minor(os.stat(one.where).st_dev)) for one in running.served}

    def bare(self) -> None:
        """After the end nothing lies in the mount points. Raises Broken."""
        for served in self._running.served:
            found = os.listdir(served.where)
            if found:
                raise Broken(f"beside the store, at mount point {served.name}: {found}")

    def connections(self) -> None:
        """After the end no connection to the kernel is left of the mounts there were. Raises Broken."""
        try:
            there = set(os.listdir(_CONNECTIONS)) & self._devices
        except OSError:
            return
        others = {
            line.split(" ")[2].partition(":")[2]
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
        }
        if there - others:
            raise Broken(f"FUSE connections left: {sorted(there - others)}")
