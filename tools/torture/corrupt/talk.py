"""What is fuzzed of the control socket: a worker that is asked anything, a caller that is answered anything."""

from __future__ import annotations

import json
from typing import Any

import trio
import trio.testing

from fsmount import control, remote, restores


class _Served:
    """A worker that does nothing."""

    freeze_limit = 0.01

    def status(self) -> remote.Reply:
        return {"state": "served"}

    def incidents(self) -> remote.Reply:
        return {"incidents": []}

    async def barrier(self) -> None:
        return

    freeze = barrier

    async def writers(self) -> remote.Reply:
        return {"writers": []}

    async def fence(self, writable: bool) -> None:
        assert isinstance(writable, bool)

    async def show_restores(self, wanted: object) -> None:
        restores.parsed(wanted)

    def thaw(self) -> None:
        return

    drain = thaw


def request(raw: bytes) -> None:
    """What a worker is asked: any bytes; it answers each line with a JSON object, or hangs up."""

    async def talk() -> bytes:
        ours, theirs = trio.testing.memory_stream_pair()
        await ours.send_all(raw)
        await ours.send_eof()
        stream: Any = theirs
        lines = control._Lines(stream)
        while (line := await lines.next()) is not None:
            assert len(line) <= 2 * control.LINE_MAX
            await control._answer(line, lines, _Served(), trio.Lock())
        await theirs.send_eof()
        said = b""
        while more := await ours.receive_some():
            said += more
        return said

    for line in trio.run(talk, clock=trio.testing.MockClock(autojump_threshold=0)).splitlines():
        assert isinstance(json.loads(line)["ok"], bool)


class _Socket:
    """What a caller hears."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def sendall(self, data: bytes) -> None:
        return

    def recv(self, size: int) -> bytes:
        said, self._raw = self._raw[:size], self._raw[size:]
        return said


def reply(raw: bytes) -> None:
    client: Any = object.__new__(remote.Client)
    client._socket, client._rest = _Socket(raw), b""
    assert isinstance(client.request("status"), dict)
