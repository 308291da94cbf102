"""Helping processes of a restore: each reads, verifies and writes the spans it is given, in an interpreter of its own.

Threads of one interpreter take turns wherever Python runs: two of them restored 1.1 to 1.3 times as fast as one, two
processes 1.8 times (285 MB of database files, two cores).  A helper is asked and answers over a socket:

    asked      u64 first byte of the span; u32 number of records that were fetched for it; of each u32 where it is in
               the memory that is shared and u32 its length; the encoded extents. The file's descriptor beside them
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
from engine.chunks import ChunkReader, Place
from engine.errors import HoldfastError
from engine.nodes import Extent
from engine.nodes.extents import decode_extents, encode_extents
from engine.restore.content import write_span
from engine.restore.trays import Shared
from engine.seam import keep_memory

_PROGRAM = "from engine.restore.helper import main; main()"
_START = struct.Struct("<QI")
_PLACE = struct.Struct("<II")
_PLACES_MAX = 2_000  # records told of a span, which has 32 slots; others are found as if none were
_ASK_MAX = _START.size + _PLACES_MAX * _PLACE.size + limits.SPAN_ROW_MAX
_ANSWER_MAX = 1 << 17
_READY = b"ready"
_END_LIMIT = 5.0  # s a helper may take to end once nobody asks it any more


class HelperGone(Exception):
    """The helper has ended without an answer."""


class Helper:
    """The asking end. Used by one thread at a time; it is not ready at once."""

    def __init__(self, store_path: str, shared: int) -> None:
        """``shared``: descriptor of the memory in which what is fetched lies."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._ready = False
        package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        with theirs, supply.handing() as (variables, fds):
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), str(shared), store_path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), shared, *fds],
                env={**os.environ, "PYTHONPATH": path, **variables},
            )

    def ready(self) -> bool:
        """Whether it has started and can be asked. Raises HelperGone."""
        if not self._ready and select.select([self._socket], [], [], 0)[0]:
            if self._socket.recv(len(_READY)) != _READY:
                raise HelperGone
            self._ready = True
        return self._ready

    def write_span(
        self, fd: int, start: int, extents: Sequence[Extent], places: Sequence[Place] = ()
    ) -> tuple[int, list[str]]:
        """As ``content.write_span``, with places of what was fetched. Raises OSError of the writing, and HelperGone."""
        places = places[:_PLACES_MAX]
        head = [_START.pack(start, len(places)), *(_PLACE.pack(*place) for place in places)]
        try:
            socket.send_fds(self._socket, [*head, encode_extents(extents)], [fd])
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


def serve(connection: socket.socket, reader: ChunkReader, shared: Shared) -> None:
    """The answering end: until the other one closes."""
    connection.send(_READY)
    while True:
        message, fds, _, _ = socket.recv_fds(connection, _ASK_MAX, 1)
        if not message:
            return
        try:
            start, count = _START.unpack_from(message)
            at = _START.size + count * _PLACE.size
            brought = shared.parts(_PLACE.iter_unpack(message[_START.size : at]))
            extents = decode_extents(message[at:])
            written, damaged = write_span(reader, fds[0], start, extents, brought)
            answer: dict[str, object] = {"bytes": written, "damaged": damaged}
        except OSError as error:
            answer = {"errno": error.errno}
        finally:
            for fd in fds:
                os.close(fd)
        connection.send(json.dumps(answer).encode())


def main() -> None:
    """The process; its arguments are the descriptors of socket and shared memory, and the store's path."""
    from engine.copies.elsewhere import Elsewhere
    from engine.home import OpenStore

    keep_memory()

    with socket.socket(fileno=int(sys.argv[1])) as connection:
        try:
            shared = Shared(int(sys.argv[2]))
            with OpenStore(sys.argv[3]) as store, store.reader.roomy():
                store.context.files.elsewhere = Elsewhere(store.context)
                serve(connection, store.reader, shared)
        except (HoldfastError, BrokenPipeError, ConnectionResetError):
            sys.exit(1)  # the one that asks does the work itself, and finds out why
