"""Somebody who writes into mount points whatever is mounted there: nothing of it may land beside the store."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.mounter import kernel

_EVERY = 0.002  # s


class Intruder:
    """``landed``: what was written beside the store; ``refused``: how often that was refused. Idle where a file system
    has no flag that seals directories."""

    def __init__(self, places: list[Path]) -> None:
        self.landed: list[str] = []
        self.refused = 0
        self._files = [place / "intruder" for place in places]
        self._device = os.stat(places[0].parent).st_dev
        self._stop = threading.Event()
        if not _can_be_sealed(places[0].parent.parent):
            self._files = []

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """For the length of the block."""
        thread = threading.Thread(target=self._work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _work(self) -> None:
        while not self._stop.wait(_EVERY):
            for file in self._files:
                try:
                    fd = os.open(file, os.O_WRONLY | os.O_CREAT)
                except OSError as error:
                    self.refused += error.errno == errno.EPERM
                    continue
                with contextlib.suppress(OSError):  # its worker may have died
                    if os.fstat(fd).st_dev == self._device:
                        self.landed.append(str(file))
                    else:
                        os.unlink(file)
                os.close(fd)


def _can_be_sealed(below: Path) -> bool:
    with tempfile.TemporaryDirectory(dir=below) as folder:
        kernel.seal(folder, sealed=True)
        try:
            os.close(os.open(f"{folder}/x", os.O_WRONLY | os.O_CREAT))
        except OSError:
            return True
        finally:
            kernel.seal(folder, sealed=False)
        return False
