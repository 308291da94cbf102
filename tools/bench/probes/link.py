"""A network of so many bytes a second towards who asks: a relay of TCP connections, in a process of its own.

``python -m tools.bench.probes.link PORT RATE DELAY_MS`` relays to PORT of this machine, and prints its own port.
"""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tools.bench.measure import BenchError
from tools.bench.peers.mounted import PROJECT

PIECE = 65536


class Rate:
    """So many bytes a second for all who share it."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free = 0.0

    def wait(self, size: int) -> None:
        """Return when this many may go."""
        with self._lock:
            begin = max(self._free, time.monotonic() - 0.01)
            self._free = begin + size / self._rate
        time.sleep(max(0.0, self._free - time.monotonic()))


def pump(source: socket.socket, target: socket.socket, rate: Rate | None, delay: float) -> None:
    """Pass on what comes until it ends."""
    try:
        while data := source.recv(PIECE):
            if rate is not None:
                rate.wait(len(data))
            else:
                time.sleep(delay)  # on the way there; the answer begins so much later
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        target.close()


def main() -> None:
    """Relay until killed."""
    port, rate, delay = int(sys.argv[1]), Rate(float(sys.argv[2])), float(sys.argv[3]) / 1000
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", port))
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for each in ((near, far, None), (far, near, rate)):
                threading.Thread(target=pump, args=(*each, delay), daemon=True).start()


@contextmanager
def linked(port: int, rate: float, delay_ms: float) -> Iterator[int]:
    """A relay to a port of this machine; its own port."""
    command = [sys.executable, "-m", "tools.bench.probes.link", str(port), str(rate), str(delay_ms)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PROJECT)
    try:
        assert child.stdout is not None
        said = child.stdout.readline().decode().strip()
        if not said:
            raise BenchError("no relay")
        yield int(said)
    finally:
        child.kill()
        child.wait()


if __name__ == "__main__":
    main()
