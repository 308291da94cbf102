"""A real mount with a writer on it, for faults of processes: what was acknowledged is known outside of both."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from engine import Store
from engine.incidents import folded
from engine.live import ROOT
from fsmount import incidents
from tools.torture.faults.verdict import demand, tidy
from tools.torture.faults.writer import content

LIMIT = 30.0  # s for anything that should happen at once, on a machine that does much else
PLANTED, SICK = "tools.torture.planted", "tools.torture.faults.sick"  # programs that serve a mount
SOURCE = Path(__file__).resolve().parents[3]


class Mounted:
    """A store, its mount, the worker's process, a writer of files of up to ``size`` bytes. Use as a context manager."""

    def __init__(
        self, place: Path, seed: int, *, store: Path | None = None, quota: int | None = None, size: int = 200_000,
        module: str = PLANTED, words: tuple[str, ...] = (), environment: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.place = place
        self.store = store or place / "store"
        self.live = place / "live"
        self.live.mkdir()
        self._seed = seed
        self._size = size
        self.limit = LIMIT
        self.starts = 0
        self.acked: set[int] = set()
        self.errors: Counter[tuple[str, int]] = Counter()
        self._rest = b""
        self._writer: subprocess.Popen[bytes] | None = None
        self.log = place / "worker.log"
        Store.init(str(self.store))
        with Store.open(str(self.store)) as opened:
            opened.create_mount("m", quota)
        self.mount(module, words, environment)

    def mount(
        self, module: str = PLANTED, words: tuple[str, ...] = (), environment: dict[str, str] | None = None
    ) -> None:  # fmt: skip
        """Start a worker in the foreground, with the planted bug; returns when it serves."""
        command = [sys.executable, "-m", module, *words]
        command += ["--store", str(self.store), "mount", "m", str(self.live)]
        variables = {**os.environ, "PYTHONPATH": str(SOURCE), **(environment or {})}
        with self.log.open("ab") as log:
            self.worker = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables, cwd="/"
            )
        self.starts += 1
        self.wait(self.serving, "the mount is not there")

    def serving(self) -> bool:
        """The control socket is listened to and the mount is in the kernel's table."""
        table = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        return f" {self.live} " in table and (self.store / "run" / "m.sock").exists()

    def wait(self, condition: Callable[[], bool], what: str, limit: float = 0.0) -> None:
        """Until it holds, listening to the writer meanwhile. Raises Broken."""
        limit = limit or self.limit
        end = time.monotonic() + limit
        while not condition():
            self.listen(0.02)
            died = self.worker.poll()
            demand(died is None, f"the worker ended ({died}) before this: {what}")
            said = self.log.read_text(errors="replace")[-600:]
            demand(time.monotonic() < end, f"{what} within {limit:.0f} s; the worker said: {said}")

    # --- the writer ---------------------------------------------------------------------------------------

    def write(self) -> None:
        """Let a process write and sync files from now on."""
        self._writer = subprocess.Popen(
            [sys.executable, "-m", "tools.torture.faults.writer", self.live, str(self._seed), str(self._size)],
            stdout=subprocess.PIPE,
        )  # fmt: skip

    def listen(self, seconds: float) -> None:
        """Take down what the writer says, for so long. Raises Broken for wrong bytes."""
        end = time.monotonic() + seconds
        pipe = None if self._writer is None else self._writer.stdout
        while (left := end - time.monotonic()) > 0:
            if pipe is None:
                time.sleep(left)
                continue
            if not select.select([pipe], [], [], left)[0]:
                return
            more = os.read(pipe.fileno(), 1 << 16)
            demand(bool(more), "the writer ended")
            *lines, self._rest = (self._rest + more).split(b"\n")
            for line in lines:
                self._take(line.decode().split())

    def _take(self, words: list[str]) -> None:
        if words[0] == "ack":
            self.acked.add(int(words[1]))
        elif words[0] == "err":
            self.errors[words[1], int(words[2])] += 1
        else:
            demand(False, f"a file that was acknowledged reads as something else: {words}")

    def acknowledges(self, more: int = 3) -> None:
        """Wait until so many more files are acknowledged: nobody hangs, nobody is refused."""
        wanted = len(self.acked) + more
        self.wait(lambda: len(self.acked) >= wanted, f"only {len(self.acked)} of {wanted} files")

    def refused(self, *numbers: int) -> None:
        """Wait for an error, and see that there is none but these."""
        self.wait(lambda: bool(self.errors), "no error was told")
        self.only(*numbers)

    def only(self, *numbers: int) -> None:
        """No error but these was told."""
        other = [one for one in self.errors if one[1] not in numbers]
        demand(
            not other,
            f"told {[(s, os.strerror(n)) for s, n in other]}, not {list(map(os.strerror, numbers))}",
        )

    def stop_writing(self) -> None:
        """End the writer. What it is waiting for in the kernel ends with it."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.kill()
            writer.wait(LIMIT)
            assert writer.stdout is not None
            rest = self._rest + writer.stdout.read()
            writer.stdout.close()
            self._rest = b""
            for line in rest.split(b"\n")[:-1]:
                self._take(line.decode().split())

    def pour(self, mib: int) -> None:
        """Write so much at once without a sync: more than may wait in the worker. It may fail, it must not hang."""
        target = self.live / "poured"
        command = ["dd", "if=/dev/zero", f"of={target}", "bs=1M", f"count={mib}", "status=none"]
        try:
            subprocess.run(command, timeout=self.limit, capture_output=True, check=False)
        except subprocess.TimeoutExpired:
            demand(False, f"a writer waits for more than {self.limit:.0f} s")

    # --- judging ------------------------------------------------------------------------------------------

    def told(self, *kinds: str) -> None:
        """Wait for an incident of one of these kinds, in the store or in the worker's memory."""
        seen: list[str] = []

        def there() -> bool:
            seen[:] = [one.kind for one in incidents(str(self.store))[0]]
            return any(kind in seen for kind in kinds)

        self.wait(there, f"no incident of {kinds}, only {seen}", min(10, self.limit))

    def reads(self) -> None:
        """Everything acknowledged can be read through the mount."""
        for number in sorted(self.acked):
            found = (self.live / f"f{number:06d}").read_bytes()
            demand(
                found == content(self._seed, number, self._size),
                f"f{number:06d} differs in the mount",
            )

    def unmount(self) -> int:
        """By the kernel's way; the worker must end by itself. Its exit code."""
        self.stop_writing()
        done = subprocess.run(["fusermount3", "-u", self.live], capture_output=True, text=True)
        demand(done.returncode == 0, f"unmounting: {done.stderr}")
        return self._ended()

    def killed(self) -> None:
        """As after a power cut of the process."""
        self.worker.kill()
        self._ended()
        subprocess.run(["fusermount3", "-uz", self.live], capture_output=True, check=False)

    def _ended(self) -> int:
        try:
            return self.worker.wait(LIMIT)
        except subprocess.TimeoutExpired:
            demand(False, f"the worker does not end within {LIMIT:.0f} s")
            raise

    def judge(self) -> None:
        """Opened anew, everything acknowledged is there, and nothing is damaged or left behind."""
        with Store.open(str(self.store)) as store:
            tree = store.open_live("m")
            try:
                for number in sorted(self.acked):
                    attr = tree.lookup(ROOT, b"f%06d" % number)
                    found = tree.read(attr.ino, 0, attr.size)
                    demand(
                        found == content(self._seed, number, self._size),
                        f"f{number:06d} differs after reopening",
                    )
            finally:
                tree.close()
            store.collect()
            problems = store.check(read_data=True).problems
            demand(not problems, f"check: {problems[:2]}")
        tidy(str(self.store))

    def kinds(self) -> set[str]:
        """Incidents in the store."""
        from engine.incidents import lines

        return {one.kind for one in folded(lines(str(self.store)))}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        if self.worker.poll() is None:
            self.worker.kill()
            self.worker.wait()
        subprocess.run(["fusermount3", "-uz", self.live], capture_output=True, check=False)
        if self._writer is not None:
            self._writer.kill()
            self._writer.wait()
