"""Helping processes of a restore: each reads, verifies and writes the spans it is given, in an interpreter of its own.

Threads of one interpreter take turns wherever Python runs: two of them restored 1.1 to 1.3 times as fast as one, two
processes 1.8 times (285 MB of database files, two cores).  A helper is asked and answers over a socket:

    asked      u64 first byte of the span, its encoded extents; the file's descriptor beside them
    answers    b"ready" once; then JSON {"bytes": n, "damaged": [text, …]} or {"errno": n}

A helper that dies costs nothing: what it was asked is done again by the thread that asked.  It ends when the socket
closes.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence

from engine import limits, supply
from engine.chunks import ChunkReader
from engine.errors import HoldfastError
from engine.nodes import Extent
from engine.nodes.extents import decode_extents, encode_extents
from engine.restore.content import write_span
from engine.seam import keep_memory

_PROGRAM = "from engine.restore.helper import main; main()"
_START = struct.Struct("<Q")
_ASK_MAX = limits.SPAN_ROW_MAX + _START.size
_ANSWER_MAX = 1 << 17
_READY = b"ready"
_END_LIMIT = 5.0  # s a helper may take to end once nobody asks it any more


class HelperGone(Exception):
    """The helper has ended without an answer."""


class Helper:
    """The asking end. Used by one thread at a time; it is not ready at once."""

    def __init__(self, store_path: str) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._ready = False
        package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        with theirs, supply.handing() as (variables, fds):
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), store_path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *fds],
                env={**os.environ, "PYTHONPATH": path, **variables},
            )

    def ready(self) -> bool:
        """Whether it has started and can be asked. Raises HelperGone."""
        if not self._ready and select.select([self._socket], [], [], 0)[0]:
            if self._socket.recv(len(_READY)) != _READY:
                raise HelperGone
            self._ready = True
        return self._ready

    def write_span(self, fd: int, start: int, extents: Sequence[Extent]) -> tuple[int, list[str]]:
        """As ``content.write_span``. Raises OSError of the writing, and HelperGone."""
        try:
            socket.send_fds(self._socket, [_START.pack(start) + encode_extents(extents)], [fd])
            raw = self._socket.recv(_ANSWER_MAX)
        except OSError:
            raise HelperGone from None
        if not raw:
            raise HelperGone
        answer = json.loads(raw)
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        return answer["bytes"], answer["damaged"]

    def close(self) -> None:
        """Let it end, and wait for that."""
        self._socket.close()
        try:
            self._process.wait(_END_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve(connection: socket.socket, reader: ChunkReader) -> None:
    """The answering end: until the other one closes."""
    connection.send(_READY)
    while True:
        message, fds, _, _ = socket.recv_fds(connection, _ASK_MAX, 1)
        if not message:
            return
        try:
            extents = decode_extents(message[_START.size :])
            written, damaged = write_span(reader, fds[0], _START.unpack_from(message)[0], extents)
            answer: dict[str, object] = {"bytes": written, "damaged": damaged}
        except OSError as error:
            answer = {"errno": error.errno}
        finally:
            for fd in fds:
                os.close(fd)
        connection.send(json.dumps(answer).encode())


def main() -> None:
    """The process; its arguments are the socket's descriptor and the store's path."""
    from engine.copies.elsewhere import Elsewhere
    from engine.home import OpenStore

    keep_memory()

    with socket.socket(fileno=int(sys.argv[1])) as connection:
        try:
            with OpenStore(sys.argv[2]) as store, store.reader.roomy():
                store.context.files.elsewhere = Elsewhere(store.context)
                serve(connection, store.reader)
        except (HoldfastError, BrokenPipeError, ConnectionResetError):
            sys.exit(1)  # the one that asks does the work itself, and finds out why
