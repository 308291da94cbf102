"""The service as a daemon has it: it counts what was restored and what was sent to locations."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

from daemon.contract import EntryInfo, JobInfo, JobState
from daemon.service.service import Service


class Served(Service):
    """Thread-safe. ``restored``: bytes of files that restores wrote, and of answers that hold files or streams;
    ``uploaded``: bytes of uploads that came to their end, by location."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.restored = 0
        self.uploaded: Counter[str] = Counter()
        self._counting = threading.Lock()

    def job_ended(
        self, job_id: int, state: JobState, *, result: dict[str, Any] | None = None,
        error: dict[str, str] | None = None,
    ) -> JobInfo:  # fmt: skip
        """A job has ended: its row, and what follows from it."""
        ended = super().job_ended(job_id, state, result=result, error=error)
        if ended.kind == "restore" and ended.state == "done":
            self._count(int(ended.result.get("bytes", 0)))
        if ended.kind == "upload":
            if ended.state == "done":
                with self._counting:
                    self.uploaded[str(ended.options["location"])] += int(ended.result["bytes"])
            self.ports.uploads.wake()  # what was made meanwhile
        return ended

    def file(
        self, reference: str, path: str, *, offset: int = 0, length: int = -1
    ) -> tuple[EntryInfo, Iterator[bytes]]:
        """A regular file, and its bytes."""
        entry, content = super().file(reference, path, offset=offset, length=length)
        return entry, self._counted(content)

    def tar(self, reference: str, path: str = "") -> Iterator[bytes]:
        """A directory or a file of a point as a tar stream."""
        return self._counted(super().tar(reference, path))

    def _counted(self, content: Iterator[bytes]) -> Iterator[bytes]:
        for part in content:
            self._count(len(part))
            yield part

    def _count(self, size: int) -> None:
        with self._counting:
            self.restored += size
