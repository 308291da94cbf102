"""Control sockets fed with nonsense: a worker goes on, a caller gets an error of the family."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing

from engine.errors import LocationUnavailable
from fsmount import control, remote


@pytest.mark.parametrize(
    "line", [b"[" * 4000, b"\xff", b"[]", b"4", b'{"op": {}}', b'"' + b"\xed\xa0\x80" + b'"']
)
async def test_a_worker_answers_nonsense_and_goes_on(line: bytes) -> None:
    """Brackets 4,000 deep ended the worker, and the mount with it."""
    ours, theirs = trio.testing.memory_stream_pair()
    stream: Any = theirs
    served: Any = object()
    await control._answer(line, control._Lines(stream), served, trio.Lock())
    await theirs.send_eof()
    assert json.loads(await ours.receive_some())["kind"] == "invalid_request"


class Saying:
    """A socket whose other side says something and goes away."""

    def __init__(self, said: bytes) -> None:
        self.said = said

    def sendall(self, data: bytes) -> None: ...

    def recv(self, size: int) -> bytes:
        said, self.said = self.said[:size], self.said[size:]
        return said


@pytest.mark.parametrize(
    "said", [b"\xff\n", b"[]\n", b"[" * 9000 + b"\n", b"{}\n", b'{"ok": 1}\n', b"x" * (2 << 20)]
)
def test_a_caller_takes_nonsense_for_no_answer(said: bytes) -> None:
    client: Any = object.__new__(remote.Client)
    client._socket, client._rest = Saying(said), b""
    with pytest.raises(LocationUnavailable, match="other bytes"):
        client.request("status")
