"""A listener on a thread of its own, for tests that ask it as its clients do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

import trio

from daemon.http import listen, problem, sockets
from daemon.http.guard import App, Limits, Tell
from daemon.http.listen import Tls


class Served:
    """What listens, and how to stop it."""

    def __init__(self, listening: Sequence[sockets.Listening]) -> None:
        self.names = [one.name for one in listening]
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop: trio.Event | None = None
        self.failed: BaseException | None = None

    @property
    def port(self) -> int:
        return int(
            next(name for name in self.names if not name.startswith("unix:")).rpartition(":")[2]
        )

    @property
    def socket(self) -> str:
        return next(name for name in self.names if name.startswith("unix:"))[5:]

    def stop(self) -> None:
        assert self._token is not None and self._stop is not None
        trio.from_thread.run_sync(self._stop.set, trio_token=self._token)

    def on_loop(self, run: Callable[[], object]) -> None:
        """Run something on the listener's loop."""
        assert self._token is not None
        trio.from_thread.run_sync(run, trio_token=self._token)

    def run(self, serve: partial[object], ready: threading.Event) -> None:
        async def main() -> None:
            self._token = trio.lowlevel.current_trio_token()
            self._stop = trio.Event()
            async with trio.open_nursery() as nursery:
                await nursery.start(partial(serve, stop=self._stop))
                ready.set()

        try:
            trio.run(main)
        except BaseException as error:
            self.failed = error
            raise
        finally:
            ready.set()


@contextmanager
def serving(
    app: App, binds: Sequence[str] = ("127.0.0.1:0",), *, tls: Tls | None = None,
    limits: Limits | None = None, names: frozenset[str] = frozenset(), tell: Tell = problem.answer,
) -> Iterator[Served]:  # fmt: skip
    """Serve an application until the block ends; then everything must have ended by itself."""
    listening = sockets.listen(binds)
    served = Served(listening)
    ready = threading.Event()
    serve = partial(listen.serve, listening, app, tls=tls, limits=limits, names=names, tell=tell)
    thread = threading.Thread(target=served.run, args=(serve, ready), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield served
    finally:
        with suppress(trio.RunFinishedError):
            served.stop()
        thread.join(30)
        assert not thread.is_alive()
        assert served.failed is None, served.failed
