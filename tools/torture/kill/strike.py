"""What happens at once in a round of ``kill-daemon``: writers and clients work, something dies and is there again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

from tools.torture.kill.bare import Intruder
from tools.torture.kill.clients import Client
from tools.torture.kill.running import Running
from tools.torture.kill.served import Broken
from tools.torture.kill.service import MOMENTS
from tools.torture.rig import Job

_LOOK = 0.004  # s
_PAUSE = 0.012  # s a writer rests after an operation, at most
_SPAN = 0.7  # s in which somebody dies, if nothing else says when
_MOMENT = 4.0  # s for a moment to come, on a busy machine
_START = 2.0  # s from a daemon's start in which it dies


class Strike:
    """``plan``: "answer ACT", a moment of ``service.MOMENTS``, or who dies at any time."""

    def __init__(
        self, job: Job, running: Running, clients: list[Client], rng: random.Random, plan: str
    ) -> None:
        self._job = job
        self._running = running
        self._clients = clients
        self._rng = rng
        self._plan = plan
        self.times: list[float] = []
        self._killed_at: dict[str, float] = {}
        self._mounterless = False

    def run(self) -> None:
        """Raises Broken."""
        rng, plan = self._rng, self._plan
        act = plan.removeprefix("answer ") if plan.startswith("answer ") else ""
        moment = MOMENTS.get(plan)
        leader = rng.choice(self._clients)
        for client in self._clients:
            client.served.write(rng, _PAUSE)
            client.told = lambda act: None
        if act:
            leader.told = lambda told: self._answered(told, act)
        elif moment is not None and moment.act:
            act = moment.act
            self._running.doom(plan)
        elif plan == "job":
            act = "restore"
        for client in self._clients:
            client.start(random.Random(rng.random()), act if client is leader else "")
        intruder = Intruder([one.where for one in self._running.served])
        with intruder.at_work():
            self._storm(waits=plan.startswith("answer ") or bool(moment and moment.act))
            for client in self._clients:
                client.stop()
            for client in self._clients:
                client.served.rest()
            self._again("" if moment is None or moment.act else plan)
        if intruder.landed:
            raise Broken(f"written beside the store: {set(intruder.landed)}")
        self._job.count("writes into a bare mount point refused", intruder.refused)

    def _answered(self, told: str, act: str) -> None:
        """In the leader's thread, right after its answer."""
        if told == act and self._running.kill():
            self._job.count("kills at an answer")

    # --- dying ----------------------------------------------------------------------------------------------

    def _storm(self, *, waits: bool) -> None:
        rng, running = self._rng, self._running
        if waits:
            end = time.monotonic() + _MOMENT
            while running.alive and time.monotonic() < end:
                time.sleep(_LOOK)
            if not running.alive and not self._plan.startswith("answer "):
                self._job.count("kills at a moment")
        else:
            time.sleep(rng.uniform(0, _SPAN))
        for kind in self._victims(waits):
            getattr(self, f"_kill_{kind}")()
        time.sleep(rng.uniform(0, 0.2))

    def _victims(self, waits: bool) -> list[str]:
        rng = self._rng
        also = [kind for kind in ("worker", "job", "mounter") if rng.random() < 0.15]
        if waits:
            return ["daemon", *also]
        chosen = {
            "daemon": ["daemon", *also], "start": ["daemon", *also], "worker": ["worker"],
            "workers": ["worker", "worker"], "daemon and workers": ["daemon", "worker", "worker"],
            "job": ["job"], "mounter": ["mounter", "worker"],
            "all": ["mounter", "worker", "worker", "job", "daemon"],
            "any": [kind for kind in ("daemon", "worker", "job", "mounter") if rng.random() < 0.5],
        }.get(self._plan, ["daemon", "worker", *also])  # fmt: skip
        rng.shuffle(chosen)
        return chosen

    def _kill_daemon(self) -> None:
        if self._running.kill():
            self._job.count("kills of the daemon")

    def _kill_worker(self) -> None:
        """One that lives, whichever; its writers have nothing to write to then."""
        living = [one for one in self._running.served if not one.died]
        if living:
            served = self._rng.choice(living)
            served.pid = self._running.worker(served.name) or served.pid
            self._killed_at[served.name] = time.monotonic()
            served.kill()
            for writer in served.writers:
                writer.stop()
            self._job.count("kills of a worker")

    def _kill_job(self) -> None:
        for pid in self._running.those("daemon.job"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self._job.count("kills of a job")

    def _kill_mounter(self) -> None:
        for pid in self._running.those("daemon.mounter"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self._job.count("kills of the mounter")
            self._mounterless = True

    # --- living again ---------------------------------------------------------------------------------------

    def _again(self, moment: str) -> None:
        """Start what does not start by itself; wait for all. Raises Broken."""
        running, rng = self._running, self._rng
        if self._mounterless:
            self._kill_daemon()  # a mounter that is a child comes with the next daemon only
        if not running.alive:
            if moment or self._plan == "start":
                running.begin(moment)
                self._die_starting(moment, rng.uniform(0.1, _START))
            for name in self._killed_at:
                self._killed_at[name] = time.monotonic()
            running.start()
        for client in self._clients:
            running.wait_usable(client.served)
            if client.served.name in self._killed_at:
                self.times.append(time.monotonic() - self._killed_at[client.served.name])

    def _die_starting(self, moment: str, after: float) -> None:
        running = self._running
        end = time.monotonic() + (_MOMENT * 5 if moment else after)
        while running.alive and time.monotonic() < end:
            time.sleep(_LOOK)
        if running.kill() and moment:
            return  # the moment did not come: no worker was dead
        self._job.count("kills of a daemon starting")
