"""One job in a process of its own: ``python -m daemon.job '{"store": PATH, "job": {…}}'``, the job as its row is.

Standard output has one JSON object a line: ``{"progress": {stage, done, total, unit, rate, eta_s}}`` as it goes on,
and last ``{"result": {…}}`` or ``{"error": {kind, message}}``.  SIGTERM cancels: the error is then of kind
``cancelled`` and the exit code 143.  A process that dies without a last line was ended by a signal, as a damaged index
causes: that job has failed.  Who started it has gone when the output cannot be written: the job ends then.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import asdict
from typing import Any, NoReturn

from daemon.contract import JobInfo
from daemon.service import work
from daemon.service.pace import Pace
from engine import HoldfastError, Store
from engine.errors import InvalidRequest, ShuttingDown
from engine.progress import Progress
from engine.seam import keep_memory

CANCELLED = (
    "cancelled"  # kind of the error after SIGTERM; no row of the error table: nothing failed
)
CANCELLED_EXIT = 128 + signal.SIGTERM
BEAT = 5.0  # s between lines at the longest: an output that nobody reads is noticed then
_EVERY = 0.5  # s between lines of progress at the least


class _CancelledError(BaseException):
    """SIGTERM. No Exception: nothing on the way catches it."""


class _Output:
    """Lines to who started this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0.0
        self._progress: dict[str, Any] | None = None
        self._pace = Pace(time.monotonic)

    def line(self, what: dict[str, Any]) -> None:
        data = json.dumps(what).encode() + b"\n"
        with self._lock:
            self._last = time.monotonic()
            while data:
                data = data[os.write(1, data) :]

    def report(self, progress: Progress) -> None:
        """A line of progress, unless there was one just now."""
        self._progress = {**progress._asdict(), **self._pace.told(progress)}
        if time.monotonic() - self._last >= _EVERY:
            self.line({"progress": self._progress})

    def beat(self) -> None:
        """In a thread: a line now and then, also when nothing happens."""
        try:
            while True:
                time.sleep(BEAT)
                self.line({"progress": self._progress or {}})
        except BrokenPipeError:
            os.kill(os.getpid(), signal.SIGTERM)


def request_of(job: JobInfo, store_path: str) -> str:
    """The argument that makes a process run a job."""
    return json.dumps({"store": store_path, "job": asdict(job)})


def main(argument: str) -> int:
    """Run the job of a request; the exit code of the error table."""
    output = _Output()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, _cancel)
    threading.Thread(target=output.beat, daemon=True).start()
    try:
        store_path, job = _read(argument)
        if job.kind in work.STOPS:
            signal.signal(signal.SIGTERM, lambda *_: stop.set())
        with Store.open(store_path) as store:
            result = work.run(store, job, output.report, stop.is_set)
        if stop.is_set():
            return _failed(output, CANCELLED, "it was cancelled", CANCELLED_EXIT)
        output.line({"result": result})
        return 0
    except _CancelledError:
        return _failed(output, CANCELLED, "it was cancelled", CANCELLED_EXIT)
    except BrokenPipeError:
        return CANCELLED_EXIT
    except HoldfastError as error:
        if stop.is_set() and isinstance(error, ShuttingDown):
            return _failed(output, CANCELLED, "it was cancelled", CANCELLED_EXIT)
        if found := work.result_of(error):
            output.line({"result": found})
        return _failed(output, error.kind.slug, str(error), error.kind.exit)
    except MemoryError:
        kind = HoldfastError.kind
        return _failed(output, kind.slug, "there is not enough memory for it", kind.exit)
    except Exception as error:
        logging.getLogger("holdfast.daemon").exception("job")
        kind = HoldfastError.kind
        return _failed(output, kind.slug, f"a bug: {type(error).__name__}: {error}", kind.exit)


def _failed(output: _Output, kind: str, message: str, code: int) -> int:
    try:
        output.line({"error": {"kind": kind, "message": message}})
    except BrokenPipeError:
        return CANCELLED_EXIT
    return code


def _cancel(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: what is being left is left in order
    raise _CancelledError


def _read(argument: str) -> tuple[str, JobInfo]:
    try:
        request = json.loads(argument)
        return str(request["store"]), JobInfo(**request["job"])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequest("job", expected="a request as JSON", found=repr(error)) from None


if __name__ == "__main__":
    logging.basicConfig(format="holdfast: %(message)s", level=logging.INFO)
    keep_memory()
    sys.exit(main(sys.argv[1] if len(sys.argv) == 2 else ""))
